import subprocess
import sys
import time

import pytest
import yaml
from small_nets import head_kinds

from zoo.config import Config, find_config, load_config, shipped_configs
from zoo.errors import InputError
from zoo.models.architecture import Window

SGD_WITHOUT = "train.optimizer={name: sgd, learning_rate: 0.1, momentum: 0, nesterov: true}"
REQUIRED = [
    "nin_digits",
    "nin_mnist",
    "nin_mnist_bn",
    "nin_cifar10",
    "nin_cifar10_bn",
    "inception_cifar10",
    "resnet29_cifar10",
    "resnet164_v2_cifar10",
]


def test_the_ready_configs_are_shipped():
    assert set(REQUIRED) <= set(shipped_configs())


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_resolved_config_loads_back_equal(name, tmp_path):
    config = load_config(name)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert load_config(path) == config
    assert load_config(path).digest == config.digest


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_every_header_names_paper_command_and_result(name):
    header = [line for line in shipped_configs()[name].read_text().splitlines() if line.startswith("#")]
    text = "\n".join(header)
    assert "arXiv:" in text and "section" in text or "table" in text or "figure" in text
    assert f"python train.py configs/{name}.yaml" in text
    assert "# Result: " in text


def test_overrides_reach_nested_keys_and_list_items():
    config = load_config("nin_digits", ["train.epochs=3", "model.mlpconvs.0.kernel=5", "data.validation=100", "seed=7"])
    assert (config.train.epochs, config.model.mlpconvs[0].kernel, config.data.validation, config.seed) == (3, 5, 100, 7)


def test_the_canvas_may_be_called_scene_as_in_version_1(tmp_path):
    wanted = load_config("nin_digits", ["canvas={count: 9, size: [400, 400]}"])
    path = tmp_path / "nin_digits.yaml"
    path.write_text(find_config("nin_digits").read_text().replace("\ncanvas:", "\nscene:"))
    for name in ("nin_digits", path):
        for key in ("scene", "canvas"):
            config = load_config(name, [f"{key}.count=9", f"{key}.size=[400, 400]"])
            assert config == wanted and config.digest == wanted.digest
            assert load_config(name, [f"{key}=null"]).canvas is None
    path.write_text(path.read_text() + "canvas: null\n")
    with pytest.raises(InputError, match="received scene and canvas; accepted: canvas alone"):
        load_config(path)


def test_an_override_may_write_numbers_as_python_does():
    assert load_config("nin_digits", ["train.optimizer.learning_rate=1e-3"]).train.optimizer.learning_rate == 1e-3


def test_different_configs_have_different_digests():
    digests = {load_config("nin_digits", [f"seed={seed}"]).digest for seed in range(20)}
    assert len(digests) == 20


@pytest.mark.parametrize(
    ("override", "key", "received", "accepted"),
    [
        ("train.epoch=3", "train", "'epoch'", "did you mean 'epochs'"),
        ("epochs=3", "unknown key", "'epochs'", "train.epochs"),
        ("model.epochs=3", "model: unknown key", "'epochs'", "train.epochs"),
        ("train.learning_rate=1", "train: unknown key", "'learning_rate'", "train.optimizer.learning_rate"),
        ("train=3", "train", "3", "keys and values"),
        ("data.dir=there", "data.dir", "there", "for data.name = digits: null"),
        ("trian.epochs=3", "unknown key", "'trian'", "train"),
        ("train.epochs=many", "train.epochs", "'many'", "whole number"),
        ("train.epochs=true", "train.epochs", "True", "a value"),
        ("train.epochs=0", "train.epochs", "0", "at least 1"),
        ("train.optimizer.name=adam", "train.optimizer.name", "'adam'", "'adamw'"),
        ("train.optimizer.learning_rate=.nan", "train.optimizer.learning_rate", "nan", "finite"),
        (SGD_WITHOUT, "train.optimizer.nesterov", "true beside momentum = 0", "a momentum"),
        ("train.warmup=1", "train.warmup", "1", "below 1"),
        ("train.milestones=[0.5, 0.4]", "train.milestones", "[0.5, 0.4]", "rising shares"),
        ("train.ema=1", "train.ema", "1", "below 1"),
        ("train.accumulate=0", "train.accumulate", "0", "at least 1"),
        ("train.augment.mixup=2", "train.augment.mixup", "2", "at most 1"),
        ("train.augment.randaugment={}", "train.augment.randaugment.magnitude", "required", ""),
        ("model.family=vgg", "model.family", "'vgg'", "'nin', 'inception', 'resnet', 'squeezenet'"),
        ("model.mlpconvs.0.filters=[-3]", "model.mlpconvs.0.filters.0", "-3", "at least 1"),
        ("model.mlpconvs.0.kernel=4", "model.mlpconvs.0.kernel", "4", "odd"),
        ("model.mlpconvs.9.kernel=3", "model.mlpconvs", "9", "items 0 to 1"),
        ("model.head.kind=foo", "model.head.kind", "'foo'", ", ".join(map(repr, head_kinds()))),
        ("model.image_size=1", "model.image_size", "[1, 1]", "at least 2 pixels"),
        ("model.image_size=null", "model.image_size", "null", "[height, width]"),
        ("model.num_classes=12", "model.num_classes", "12", "10"),
        ("model.channels=3", "model.channels", "3", "1"),
        ("model.preprocess.mean=[1, 2]", "model.preprocess.mean", "2 numbers", "channels = 1"),
        ("data.name=npz", "data.dir", "null", "an .npz file"),
        ("data.name=image_folder", "data.dir", "null", "one folder a class"),
        ("data.validation=2.5", "data.validation", "2.5", "whole number"),
        ("version=2", "version", "2", "1"),
        ("seed=yes", "seed", "True", "a value"),
        ("data.validation=no", "data.validation", "False", "a value"),
        ("train.optimizer.learning_rate=true", "train.optimizer.learning_rate", "True", "a value"),
        ("train.epochs=2024-13-45", "train.epochs=2024-13-45", "'2024-13-45'", "YAML"),
        ("canvas.size=[70, 200]", "canvas.size", "[70, 200]", "at least [80, 80]"),
        ("model.image_size=32", "canvas.size", "[200, 200]", "at least [320, 320]"),
        ("train.freeze='stem('", "train.freeze", "'stem('", "regular expression"),
        ("name=a/b", "name", "'a/b'", "pattern"),
        ("epochs", "override", "'epochs'", "key.path=value"),
        ("seed.x=1", "seed", "seed.x=1", "no keys"),
    ],
)
def test_bad_values_are_one_line_with_key_received_and_accepted(override, key, received, accepted):
    before = ["seed=0"] if override == "seed.x=1" else []
    with pytest.raises(InputError) as error:
        load_config("nin_digits", [*before, override])
    text = str(error.value)
    assert key in text and received in text and accepted in text and "\n" not in text


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("model.padding=valid", r"model.image_size: received \[32, 32\], but these layers and .* at least 39 pixels"),
        ("model.padding=reflect", "model.padding: received 'reflect'; accepted: 'same' or 'valid'"),
    ],
)
def test_a_depth_that_does_not_fit_without_padding_is_refused(override, text):
    with pytest.raises(InputError, match=text):
        load_config("resnet29_cifar10", [override])


def test_patience_without_validation_is_refused():
    with pytest.raises(InputError, match="train.patience: received 3; accepted with data.validation = 0: null"):
        load_config("nin_digits", ["train.patience=3", "data.validation=0"])


def test_a_key_given_twice_is_an_error(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("seed: 1\nseed: 2\n")
    with pytest.raises(InputError, match="'seed' is given twice"):
        load_config(path)


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "a: [1,\n", "\x00\x01"])
def test_a_file_that_is_no_config_is_named(tmp_path, content):
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match="broken.yaml"):
        load_config(path)


def test_missing_files_and_names_say_what_there_is(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        find_config(tmp_path / "gone.yaml")
    with pytest.raises(InputError, match="did you mean 'nin_digits'"):
        find_config("nin_digit")


def test_a_file_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(InputError, match="latin.yaml: cannot be read"):
        load_config(path)


def test_windows_follow_the_convolution_formula():
    # CS231n: (W - F + 2P) / S + 1
    assert Window(kernel=11, stride=4).output_size(227) == 55
    assert Window(kernel=3, padding=2).output_size(32) == 32
    assert Window(kernel=5).output_size(4) == 0


def test_config_round_trips_through_plain_yaml():
    config = load_config("resnet29_cifar10")
    assert Config.model_validate(yaml.safe_load(config.to_yaml())) == config


def test_a_depth_has_the_digest_of_its_table_and_takes_overrides(tmp_path):
    name = "resnet164_v2_cifar10"
    data = yaml.safe_load(shipped_configs()[name].read_text())
    assert data["model"].pop("depth") == 164
    rows = [{"blocks": 18, "width": 16 * 2**n, "filters": 64 * 2**n, "stride": min(n + 1, 2)} for n in range(3)]
    data["model"]["stages"] = rows
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(data))
    short, long = load_config(name), load_config(path)
    assert short == long and short.digest == long.digest and " depth:" not in short.to_yaml()
    changed = load_config(name, ["model.stages.0.blocks=2"]).model
    assert [row.blocks for row in changed.stages] == [2, 18, 18]
    deeper = load_config(path, ["model.depth=1001"]).model
    assert [row.blocks for row in deeper.stages] == [111] * 3
    with pytest.raises(InputError, match="model.depth: received 165; accepted for bottlenecks: 50"):
        load_config(name, ["model.depth=165"])
    data["model"]["depth"] = 50
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(InputError, match="model: received depth and stages; accepted: one of them"):
        load_config(path)


def test_config_errors_and_listing_load_no_backend():
    code = (
        "import sys, pkgutil, importlib, zoo, zoo.models; from zoo.catalogue import list_models; list_models()\n"
        "for each in pkgutil.iter_modules(zoo.models.__path__): importlib.import_module('zoo.models.' + each.name)\n"
        "try: zoo.load_config('nin_digits', ['train.epoch=1'])\n"
        "except zoo.load_config.__globals__['InputError']: pass\n"
        "assert not {'keras', 'tensorflow', 'jax'} & set(sys.modules), sorted(sys.modules)"
    )
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert time.perf_counter() - begin < 5  # a second on a quiet machine
