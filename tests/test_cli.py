import importlib.util
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import randomize
from PIL import Image

import zoo as package
from zoo.card import attach, card
from zoo.catalogue import entries
from zoo.cli import main
from zoo.cli import zoo as group
from zoo.cli.train import train as train_command

ROOT = Path(__file__).resolve().parents[1]


def call(capsys, *arguments, **kwargs):
    """Run a command in this process: exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments], **kwargs)
    captured = capsys.readouterr()
    return stopped.value.code or 0, captured.out, captured.err


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    model = randomize(package.build("nin_digits"))
    about = card(model).model_copy(update={"class_names": tuple("abcdefghij")})
    return package.save(attach(model, about), tmp_path_factory.mktemp("model") / "digits.keras")


@pytest.fixture
def image_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


@pytest.mark.parametrize("name", [None, *group.commands])
def test_every_command_has_help_with_an_example(capsys, name):
    code, out, _ = call(capsys, *([name] if name else []), "--help")
    assert code == 0 and "Example: zoo" in out and "Usage:" in out


def test_list_prints_the_catalogues_numbers_uncut_and_without_a_backend():
    code = (
        "import sys; from zoo.cli import main\n"
        "try: main(['list'])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    environment = {**os.environ, "COLUMNS": "40"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert list(lines) == ["name", *entries()]
    for name, entry in entries().items():
        numbers = [f"{entry.params / 1e6:.3f}", f"{entry.gmacs:.4f}", str(entry.receptive_field)]
        assert lines[name].split()[3:6] == numbers and lines[name].endswith(entry.paper)
    assert lines["resnet50"].split()[:6] == ["resnet50", "224x224x3", "1000", "25.557", "3.8580", "483"]


def test_list_compares_each_control_with_its_twin(capsys):
    code, out, _ = call(capsys, "list", "--compare")
    controls = [name for name, entry in entries().items() if entry.twin]
    assert code == 0 and [line.split()[0] for line in out.splitlines()[1:]] == controls
    (naive,) = (line.split() for line in out.splitlines() if line.startswith("inception_naive"))
    assert (naive[0], naive[3], *naive[-2:]) == ("inception_naive", "googlenet_paper", "13.94", "7.94")


def test_list_takes_shell_patterns(capsys):
    code, out, _ = call(capsys, "list", "resnet*v2", "nin_digits")
    names = ["nin_digits", "resnet50_v2", "resnet101_v2", "resnet152_v2"]
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == ["name", *names]
    code, out, err = call(capsys, "list", "resnt*")
    assert code == 2 and not out and "pattern: received 'resnt*'" in err and "resnet50" in err
    code, out, _ = call(capsys, "list", "--compare", "resnet*")
    assert code == 0 and [line.split()[0] for line in out.splitlines()[1:]] == ["resnet20_cifar10", "resnet110_cifar10"]


def test_convert_scan_predict_export(capsys, model_file, image_file, tmp_path):
    fcn = tmp_path / "fcn.keras"
    code, out, _ = call(capsys, "convert", model_file, "-o", fcn)
    assert code == 0 and "the same function" in out and "window, stride" in out
    report = json.loads((tmp_path / "fcn.verification.json").read_text())
    assert report["max_error_at_training_size"] <= 1e-5 and report["geometry"]["window"] == [8, 8]

    code, out, _ = call(capsys, "scan", fcn, image_file, "-o", tmp_path / "out")
    assert code == 0 and "cells won" in out
    with np.load(tmp_path / "out" / "scores.npz") as saved:
        assert saved["scores"].shape == (17, 12, 10)
    with Image.open(tmp_path / "out" / "overlay.png") as picture:
        assert picture.size[0] > 100
    code, _, _ = call(capsys, "scan", model_file, image_file, "-o", tmp_path / "class", "--class", "c", "--tile", "16")
    assert code == 0
    with np.load(tmp_path / "out" / "scores.npz") as a, np.load(tmp_path / "class" / "scores.npz") as b:
        np.testing.assert_allclose(a["scores"], b["scores"], rtol=1e-5, atol=1e-5)

    code, out, _ = call(capsys, "predict", model_file, image_file, image_file, "--top", 2)
    lines = out.splitlines()
    assert (
        code == 0 and len(lines) == 2 and "%" in lines[0] and "40 x 30 pixels, cropped or padded to 8 x 8" in lines[0]
    )

    # The file of the format whose runtime starts fastest.
    code, out, _ = call(capsys, "export", fcn, "-o", tmp_path / "exported.onnx", "--format", "onnx")
    assert code == 0 and "onnxruntime" in out and "within" in out and (tmp_path / "exported.onnx").is_file()


@pytest.mark.extended
def test_plot_draws_a_cell_and_prints_its_boxes(capsys, monkeypatch, model_file, image_file, tmp_path):
    fcn = package.save(package.convolutionalize(package.load(model_file)), tmp_path / "fcn.keras")
    monkeypatch.chdir(tmp_path)
    printed = []
    for source in (model_file, fcn):
        more = ("--overwrite",) if printed else ()
        code, out, err = call(capsys, "plot", source, "--cell", "3,4", "--image", image_file, "--class", "c", *more)
        assert code == 0, err
        assert out.endswith("wrote cell_3_4.png\n")
        printed.append(out.splitlines())
    assert printed[0] == printed[1]
    assert printed[0][0].startswith("cell 3,4 of 17 x 12, class c: score ")
    # Window 8 and receptive field 14 at stride 2, so 3 pixels more at every side.
    boxes = {line[:17].strip(): line[17:].split() for line in printed[0][2:6]}
    assert boxes["window"][:4] == ["6", "8", "14", "16"] and boxes["window"][4].endswith("%")
    assert boxes["theoretical field"] == boxes["exact field"] == ["3", "5", "17", "19", "100.0%"]
    assert float(boxes["effective field"][4].rstrip("%")) >= 95
    with Image.open("cell_3_4.png") as picture:
        assert picture.format == "PNG" and picture.size[0] > 500
    code, out, _ = call(capsys, "plot", fcn, "--cell", "0,0", "--image", image_file, "-o", "pictures/first.png")
    assert code == 0 and (tmp_path / "pictures" / "first.png").is_file()


@pytest.mark.extended
def test_a_padding_free_twin_by_command(capsys, model_file, tmp_path):
    twin = tmp_path / "twin.keras"
    code, out, _ = call(capsys, "convert", model_file, "-o", twin, "--padding", "valid")
    assert code == 0 and "cells not cut by a border" in out and "no layer pads" in out
    report = json.loads((tmp_path / "twin.verification.json").read_text())
    assert report["max_error_inner_cells"] <= 1e-5 and report["max_error_at_training_size"] is None
    assert report["padding_free"] and report["crops"] == 36 and report["crops_max_error"] <= 1e-5
    code, out, _ = call(capsys, "convert", model_file, "-o", tmp_path / "fcn.keras")
    code, out, _ = call(capsys, "convert", tmp_path / "fcn.keras", "-o", tmp_path / "again.keras", "--padding", "valid")
    assert code == 0 and package.geometry(package.load(twin)).window == (14, 14)
    code, _, err = call(
        capsys, "convert", model_file, "-o", tmp_path / "x.keras", "--padding", "valid", "--pooling", "global"
    )
    assert code == 2 and "pooling='window'" in err and err.count("\n") == 1


def test_global_pooling_by_command(capsys, model_file, image_file, tmp_path):
    code, out, _ = call(capsys, "convert", model_file, "-o", tmp_path / "all.keras", "--pooling", "global")
    assert code == 0 and "one answer" in out
    assert package.load(tmp_path / "all.keras").input_shape == (None, None, None, 1)
    code, out, _ = call(capsys, "predict", tmp_path / "all.keras", image_file)
    assert code == 0 and "%" in out and "cropped" not in out
    for arguments in (["scan", "all.keras", image_file, "-o", "out"], ["convert", "all.keras", "-o", "again.keras"]):
        code, _, err = call(capsys, *(tmp_path / each if each == "all.keras" else each for each in arguments))
        assert code == 2 and "one answer for an image of any size" in err and err.count("\n") == 1


def test_global_pooling_is_written_only_where_it_equals_its_source(capsys, monkeypatch, model_file, tmp_path):
    monkeypatch.setattr("zoo.convert.conversion.error_at_training_size", lambda *_: 2e-5)
    with pytest.raises(RuntimeError, match="failed its check"):
        main(["convert", str(model_file), "-o", str(tmp_path / "all.keras"), "--pooling", "global"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "gone", "-o", "afile/o.keras"],
        ["scan", "gone", "gone.png", "-o", "afile"],
        ["scan", "gone", "gone.png", "-o", "afile/out"],
        ["export", "gone", "-o", "afile/x"],
        ["evaluate", "RUN", "-o", "RUN"],
    ],
)
def test_a_wrong_output_is_told_before_any_work(capsys, monkeypatch, tmp_path, arguments):
    """The models do not exist: whoever looked for them first would say so."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afile").touch()
    (tmp_path / "RUN").mkdir()
    shutil.copy(ROOT / "configs" / "nin_digits.yaml", tmp_path / "RUN" / "config.yaml")
    code, _, err = call(capsys, *arguments)
    assert code == 2 and err.count("\n") == 1, err
    assert "accepted: a folder" in err or "is a folder; accepted: the path of a file" in err
    assert ".keras'" not in err or "afile" in err


def test_overrides_and_options_stand_before_the_config_too(capsys):
    wrong = "train.epoch=1"
    for order in ([wrong, "nin_digits"], ["--fresh", wrong, "nin_digits"], ["nin_digits", wrong]):
        code, _, err = call(capsys, "train", *order)
        assert code == 2 and "did you mean 'epochs'" in err
    code, _, err = call(capsys, "train", "train.epochs=1")
    assert code == 2 and "Missing argument 'CONFIG'" in err


def test_good_images_are_answered_before_a_bad_one_stops(capsys, model_file, image_file):
    code, out, err = call(capsys, "predict", model_file, image_file, "gone.png")
    assert code == 2 and out.count("\n") == 1 and "image.png" in out and "gone.png" in err


def plain(tmp_path, name):
    """Models that somebody else made: no card."""
    image = keras.Input((8, 8, 1))
    vector = keras.layers.Flatten()(image)
    other = keras.Input((8, 8, 1))
    open_image = keras.Input((None, None, 1))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3, name="conv")(open_image))
    made = {
        "fixed": lambda: keras.Model(image, keras.layers.Dense(3)(vector)),
        "two inputs": lambda: keras.Model(
            [image, other], keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.Add()([image, other])))
        ),
        "two outputs": lambda: keras.Model(image, [keras.layers.Dense(3)(vector), keras.layers.Dense(2)(vector)]),
        "vector": lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]),
        "open": lambda: keras.Model(open_image, pooled),
    }
    return package.save(made[name](), tmp_path / "plain.keras")


@pytest.mark.parametrize(
    ("name", "commands", "text"),
    [
        ("two inputs", ("predict", "scan", "convert"), "accepted: one image"),
        ("vector", ("predict", "scan", "convert"), "accepted: one image"),
        ("two outputs", ("predict", "scan"), "has 2 outputs, "),
        ("open", ("convert 2 2",), "'conv'"),
        ("open", ("convert -3 0",), "received (-3, 0); accepted: 2 numbers above 0"),
    ],
)
def test_what_a_foreign_model_cannot_do_is_one_line(capsys, monkeypatch, image_file, tmp_path, name, commands, text):
    monkeypatch.chdir(tmp_path)
    path = plain(tmp_path, name)
    for command in commands:
        command, *size = command.split()
        rest = {"predict": [image_file], "scan": [image_file, "-o", "out"], "convert": ["-o", "fcn.keras"]}[command]
        rest += ["--image-size", *size] if size else []
        code, _, err = call(capsys, command, path, *rest)
        assert code == 2 and text in err and err.count("\n") == 1, err
        assert not (tmp_path / "fcn.keras").exists() and not (tmp_path / "out").exists()


def test_every_output_is_converted_and_verified(capsys, tmp_path):
    code, out, _ = call(capsys, "convert", plain(tmp_path, "two outputs"), "-o", tmp_path / "fcn.keras")
    assert code == 0 and "the same function" in out
    assert [tensor.shape[-1] for tensor in package.load(tmp_path / "fcn.keras").outputs] == [3, 2]


def test_convert_takes_the_length_of_sequences_and_leaves_its_source_alone(capsys, tmp_path):
    import keras

    import zoo as package

    sound = keras.Input((None, 3))
    pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.Conv1D(4, 3)(sound))
    path = package.save(keras.Model(sound, keras.layers.Dense(2)(pooled)), tmp_path / "sound.keras")
    code, _, err = call(capsys, "convert", path, "-o", tmp_path / "fcn.keras")
    assert code == 2 and "its input leaves length open; give the training size as image_size=(length,)" in err
    code, out, err = call(capsys, "convert", path, "-o", tmp_path / "fcn.keras", "--length", 20)
    assert code == 0 and "20, 1 pixels" in out, err
    before = path.read_bytes()
    code, _, err = call(capsys, "convert", path, "-o", path, "--length", 20)
    assert code == 2 and "is read by this command" in err and path.read_bytes() == before
    code, _, err = call(capsys, "convert", path, "-o", tmp_path / "fcn.keras", "--length", 20, "--image-size", 9, 9)
    assert code == 2 and "--length and --image-size: accepted: one of the two" in err


def test_code_in_a_file_is_named_and_never_run(capsys, tmp_path):
    import keras

    class Mine(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    image = keras.Input((8, 8, 3))
    layers = {"lambda": keras.layers.Lambda(lambda x: 2 * x, name="code"), "own": Mine(name="code")}
    for name, layer in layers.items():
        with warnings.catch_warnings(action="ignore"):
            keras.Model(image, layer(image)).save(tmp_path / f"{name}.keras")
        code, _, err = call(capsys, "convert", tmp_path / f"{name}.keras", "-o", tmp_path / "fcn.keras")
        assert code == 2 and "layer 'code' (" in err and err.count("\n") == 1, err


def test_a_foreign_model_is_described_and_predicts_at_the_size_of_its_input(capsys, image_file, tmp_path):
    code, out, _ = call(capsys, "predict", plain(tmp_path, "fixed"), image_file)
    assert code == 0 and "40 x 30 pixels, cropped or padded to 8 x 8" in out
    for name in ("two inputs", "two outputs", "vector", "open"):
        code, out, err = call(capsys, "describe", plain(tmp_path, name))
        assert code == 0 and "parameters" in out, err
    code, _, err = call(capsys, "describe", plain(tmp_path, "two inputs"), "--image-size", 9, 9)
    assert code == 2 and "takes no single image" in err


def test_another_backend_than_is_there_is_one_line(capsys, monkeypatch, model_file, image_file):
    for name in ("theano", "torch"):
        monkeypatch.setenv("KERAS_BACKEND", name)
        if name == "torch" and importlib.util.find_spec("torch"):
            continue
        code, _, err = call(capsys, "predict", model_file, image_file)
        assert code == 2 and err.startswith(f"zoo: KERAS_BACKEND: received {name!r}; accepted: tensorflow")


@pytest.mark.slow
def test_the_log_of_tensorflow_is_not_shown_under_another_backend(model_file, tmp_path):
    pytest.importorskip("jax")
    np.save(tmp_path / "image.npy", np.zeros((20, 20), np.uint8))
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    code = (
        "import sys; from zoo.cli import main\n"
        "for rest in (['scan', sys.argv[1], 'image.npy', '-o', 'out'], ['export', sys.argv[1], '-o', 'exported']):\n"
        "    try: main(rest)\n"
        "    except SystemExit as stop: assert not stop.code\n"
    )
    command = [sys.executable, "-c", code, str(model_file)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.count("wrote") >= 2, done.stderr
    assert "oneDNN" not in done.stderr and "I0000" not in done.stderr, done.stderr


def test_ctrl_c_during_an_import_is_an_interruption():
    """TensorFlow's extension modules turn the interrupt into an ImportError, or crash over it."""
    code = (
        "import builtins, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a process in the background begins without
        "real = builtins.__import__\n"
        "def stop(name, *rest, **named):\n"
        "    if name.startswith('keras'):\n"
        "        try: signal.raise_signal(signal.SIGINT)\n"
        "        except KeyboardInterrupt: raise ImportError('initialization failed')\n"
        "    return real(name, *rest, **named)\n"
        "builtins.__import__ = stop\n"
        "from zoo.cli import main; main(['train', 'nin_digits', '--workdir', 'unused'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (130, "zoo: interrupted")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["train", "nin_digit"], "did you mean 'nin_digits'"),
        (["train", "gone.yaml"], "no such file"),
        (["train", "nin_digits", "train.epoch=1"], "did you mean 'epochs'"),
        (["train", "nin_digits", "epochs"], "key.path=value"),
        (["train", "nin_digits", "data.name=npz", "data.dir=gone.npz"], "gone.npz"),
        (["train"], "Missing argument 'CONFIG'"),
        (["trian"], "No such command 'trian'"),
        (["train", "nin_digits", "--epochs", "3"], "No such option"),
        (["evaluate", "gone"], "has no config.yaml"),
        (["predict", "gone.keras", "x.png"], "gone.keras"),
        (["predict", "MODEL", "gone.png"], "gone.png"),
        (["convert", "MODEL", "-o", "out.h5"], "ends in .keras"),
        (["convert", "MODEL", "-o", "out.keras", "--image-size", "9", "9"], "received (9, 9)"),
        (["scan", "MODEL", "gone.tif", "-o", "out"], "gone.tif"),
        (["scan", "MODEL", "IMAGE", "-o", "out", "--class", "k"], "unknown class 'k'"),
        (["scan", "MODEL", "IMAGE", "-o", "out", "--tile", "1"], "at least one stride"),
        (["scan", "IMAGE", "IMAGE", "-o", "out"], "not a .keras archive"),
        (["export", "MODEL", "-o", "out", "--format", "savedmodel"], "did you mean 'saved_model'"),
        (["plot", "gone"], "has no config.yaml"),
        (["plot", "MODEL"], "has no config.yaml"),
        (["plot", "MODEL", "--cell", "1,2"], "--cell has no effect without --image"),
        (["plot", "MODEL", "--image", "IMAGE", "-o", "c.png"], "--image has no effect without --cell"),
        (["plot", "MODEL", "--cell", "1", "--image", "IMAGE"], "received '1'; accepted: two whole numbers"),
        (["plot", "MODEL", "--cell", "17,0", "--image", "IMAGE"], "row 17 appears at a height of 41 pixels"),
        (["plot", "MODEL", "--cell", "1,2", "--image", "IMAGE", "--class", "k"], "unknown class 'k'"),
        (["plot", "MODEL", "--cell", "1,2", "--image", "IMAGE", "-o", "c.jpg"], "a name that ends in .png"),
        (["plot", "MODEL", "--cell", "1,2", "--image", "gone.png"], "gone.png"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    capsys, monkeypatch, model_file, image_file, tmp_path, arguments, text
):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    known = {"MODEL": model_file, "IMAGE": image_file}
    code, out, err = call(capsys, *(known.get(argument, argument) for argument in arguments))
    assert code == 2, err
    assert text in err and err.count("\n") == 1 and "Traceback" not in err, err
    left = [path for path in empty.rglob("*") if path.is_file() and path.name not in ("config.yaml", ".lock")]
    assert not left


def test_a_converted_model_is_not_converted_again_nor_asked_for_one_answer(capsys, model_file, image_file, tmp_path):
    fcn = package.save(package.convolutionalize(package.load(model_file)), tmp_path / "fcn.keras")
    code, _, err = call(capsys, "convert", fcn, "-o", tmp_path / "again.keras")
    assert code == 2 and "no head left" in err
    code, _, err = call(capsys, "predict", fcn, image_file)
    assert code == 2 and "zoo scan" in err


def test_errors_in_a_config_answer_without_a_backend():
    code = (
        "import sys; from zoo.cli import main\n"
        "try: main(['train', 'nin_digits', 'train.epoch=1'])\n"
        "except SystemExit as stop: assert stop.code == 2\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_train_py_is_the_same_command():
    done = subprocess.run([sys.executable, ROOT / "train.py", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: train.py [OPTIONS] CONFIG [KEY=VALUE]...")
    assert train_command.name == "train"
    wrong = subprocess.run(
        [sys.executable, ROOT / "train.py", "gone.yaml"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2 and wrong.stderr.startswith("train.py: config 'gone.yaml': no such file")
