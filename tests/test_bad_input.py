"""Bad input costs nothing and is one line: configs, overrides, class names and model files."""

import json
import zipfile
from typing import Annotated

import keras
import numpy as np
import pytest
import yaml
from conftest import randomize

import zoo
from zoo import archives
from zoo.catalogue import resolve
from zoo.classes import class_list
from zoo.config import load_config
from zoo.config.parsing import parse_yaml
from zoo.errors import InputError, cause, chosen, printable, quoted, refuse
from zoo.schema import FIRST_FORM, Added, Renamed, Schema

BOMB = "&a0 [x, x]" + "".join(f", &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))


def refusal(call, *arguments, **options):
    """The message of a refusal, which is one printable line of at most 500 characters."""
    with pytest.raises(InputError) as error:
        call(*arguments, **options)
    text = str(error.value)
    assert len(text) <= 500 and text.isprintable(), text
    return text


def test_messages_are_one_printable_line_and_end_as_they_would():
    text = str(InputError("a" * 2000 + "\x1b[31m\n\udc80" + "; accepted: b"))
    assert len(text) == 500 and text.endswith(r"\x1b[31m\n\udc80; accepted: b")
    assert printable("é ü 中") == "é ü 中"


def test_a_refusal_names_what_was_received_and_what_is_accepted():
    assert refusal(refuse, "tile", 0, "a number above 0") == "tile: received 0; accepted: a number above 0"
    assert refusal(refuse, "image", "3 x 4 pixels", "8 x 8") == "image: received 3 x 4 pixels; accepted: 8 x 8"
    assert refusal(refuse, "border", quoted("x\n"), "'none'") == r"border: received 'x\n'; accepted: 'none'"
    assert chosen("way", "cells", ("roi", "cells")) == "cells"
    assert refusal(chosen, "way", "cell", ("roi", "cells")).startswith(
        "unknown way 'cell' (did you mean 'cells'?); acc"
    )
    assert len(refusal(refuse, "scales", [1.5] * 1000, "numbers")) < 200


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("model.image_size=[8]", "model.image_size: received [8]"),
        ("canvas.size=[]", "canvas.size: received []"),
        ("scene.size=[1000000, 1000000]", "canvas.size"),
        ("model.family={a: 1}", "model.family"),
        ("model.family=..a:b", "model.family"),
        ("model.family=os:path", "model.family"),
        ("model.mlpconvs.0.pool.size=10000000", "at least 9999999"),
        ("model.mlpconvs.0.kernel=10000001", "model.mlpconvs.0: received kernels of"),
        ("model.mlpconvs.0.filters=[100000000000]", "model.mlpconvs.0.filters.0"),
        ("model.mlpconvs.0.filters=[1000000, 1000000]", "model.mlpconvs.0: received kernels of"),
        ("model.image_size=[1000000, 1000000]", "model.image_size: received maps of"),
        ("model.num_classes=1" + "0" * 60, "model.num_classes"),
        ("train.epochs=1" + "0" * 10_000, "a number of 10001 characters"),
        ("train.epochs=0x" + "f" * 10_000, "a number of 10002 characters"),
        ("train.epochs=1000000000000", "train.epochs"),
        ("train.batch_size=1000000000", "train.batch_size"),
        ("train.optimizer.learning_rate=1e400", "train.optimizer.learning_rate"),
        ("train.epochs=" + "[" * 100_000, "nested more than 30"),
        ("train.epochs=" + "[" * 31 + "]" * 31, "nested more than 30"),
        (f"data.dir=[{BOMB}]", "stands for more than 10,000 values"),
        ("data.dir=&a [*a]", "stands before or inside"),
        ("train={<<: {epochs: 1}}", "merge keys"),
        ("model.head={kind: pooled, kind: flatten}", "'kind' is given twice"),
        ("train.epochs=!!python/object:os.system 1", "not valid YAML"),
        ("train.epochs=!!timestamp x", "not valid YAML"),
        ("train.epochs=!!bool x", "not valid YAML"),
        ("train.epochs=!!int x", "not valid YAML"),
        ("train.epochs='", "not valid YAML"),
        ("train..epochs=1", "accepted form"),
        ("=1", "accepted form"),
        (".".join("abc" * 100) + "=1", "at most 20"),
        ("model.mlpconvs.²=1", "has the items 0 to 1"),
        ("model.mlpconvs." + "1" * 5000 + "=1", "has the items 0 to 1"),
        ("model.padding=" + "x" * 100_000, "model.padding"),
        ("\x1b[31m=1", r"\x1b[31m"),
        ('model.padding="\\ud800"', "model.padding"),
    ],
)
def test_overrides_are_refused_in_one_line_that_names_them(override, named):
    assert named in refusal(load_config, "nin_digits", [override])


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("".join(f"k{n}: 1\n" for n in range(30_000)), "bytes"),
        ("".join(f"k{n}: 1\n" for n in range(10_000)), "10,000 values"),
        (f"model: [{BOMB}]\n", "10,000 values"),
        ("name: " + "x" * 2**19, "bytes"),
        ("a: " + "{a: " * 50_000, "30 levels"),
    ],
)
def test_files_that_are_no_config_are_refused_by_their_extent(tmp_path, content, named):
    path = tmp_path / "large.yaml"
    path.write_text(content, encoding="utf-8")
    text = refusal(load_config, path)
    assert named in text and "large.yaml" in text


def test_an_alias_is_a_copy_and_a_letter_is_itself_composed_or_not(tmp_path):
    value = parse_yaml("a: &x [1]\nb: *x\n")
    assert value == {"a": [1], "b": [1]} and value["a"] is not value["b"]
    path = tmp_path / "e\u0301t\u00e9.yaml"
    path.write_text(load_config("nin_digits").to_yaml(), encoding="utf-8")
    assert load_config(tmp_path / "\u00e9te\u0301.yaml") == load_config("nin_digits")
    refusal(load_config, "a" * 5000)
    refusal(load_config, "a\0.yaml")


@pytest.mark.parametrize("name", ["nin_mnist_bn", "resnet20_cifar10", "resnet29_cifar10", "squeezenet1_1"])
def test_kernels_are_counted_as_keras_counts_them(name):
    config, model = resolve(name), zoo.build(name)
    layers = list(config.layer_sizes())
    size = tuple(map(config.feature_map_size, config.image_size))
    counted = sum(each.weights for each in layers)
    counted += config.head.kernel_numbers(layers[-1].channels, size, config.num_classes)
    assert counted == sum(int(np.prod(weight.shape)) for weight in model.weights if len(weight.shape) > 1)


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_model_of_the_catalogue_is_within_its_bounds(name):
    config = resolve(name)
    assert 0 < config.largest_map < 10**8 and sum(each.weights for each in config.layer_sizes()) < 10**8


@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": 10**11},
        {"num_classes": 10**5000},
        {"image_size": (10**6, 10**6)},
        {"mlpconvs": [{"kernel": 1, "filters": [1]}] * 5000},
        {"mlpconvs": [{"kernel": 1, "filters": [1] * 100}] * 100},
        {"head": {"kind": "flatten", "hidden": [10**5, 10**5]}},
        {"head": {"kind": "pyramid", "levels": [10**5]}},
    ],
)
def test_build_answers_by_arithmetic(options):
    refusal(zoo.build, "nin_digits", **options)


class Inner(Schema):
    size: int
    depth: Annotated[int, Added()] = 2


class Toy(Schema):
    canvas: Annotated[Inner, Renamed("scene")]
    group: Annotated[str | None, Added()] = None


def test_keys_added_or_renamed_after_version_1_keep_digests_and_are_read():
    toy = Toy.model_validate({"scene": {"size": 1}})
    assert toy == Toy(canvas=Inner(size=1))
    assert toy.model_dump(context=FIRST_FORM) == {"scene": {"size": 1}}
    assert toy.model_dump() == {"canvas": {"size": 1, "depth": 2}, "group": None}
    changed = Toy(canvas=Inner(size=1, depth=3), group="a")
    assert changed.model_dump(context=FIRST_FORM) == {"scene": {"size": 1, "depth": 3}, "group": "a"}
    with pytest.raises(ValueError, match="new name of scene"):
        Toy.model_validate({"scene": {"size": 1}, "canvas": {"size": 1}})


@pytest.mark.parametrize(
    "names", [["a", ""], ["a", " "], ["a", "a"], ["\u00e9", "e\u0301"], ["\x1b[31m"], ["\udc80"], ["a" * 300], ["a\nb"]]
)
def test_class_names_are_visible_and_each_once(names):
    assert "here" in refusal(class_list, names, "here")


def test_class_names_are_composed_and_as_many_as_outputs():
    assert class_list(["e\u0301", "$$"], "here", 2) == ("\u00e9", "$$")
    assert "accepted: 3" in refusal(class_list, ["a", "b"], "here", 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 1))
    net = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    return zoo.save(randomize(net), tmp_path_factory.mktemp("bad") / "net.keras")


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("build", "a name of the catalogue, the path of a config, or a model section"),
        *((name, "a Keras model") for name in ("convolutionalize", "describe", "geometry", "scan", "class_activation")),
        *((name, "a Keras model") for name in ("export", "save", "verify", "evaluate", "score_boxes")),
        ("run", "a Config, as `load_config` gives it"),
    ],
)
def test_what_is_no_model_and_no_config_is_refused_as_that(name, accepted, tmp_path):
    rest = {
        **dict.fromkeys(("scan", "class_activation", "score_boxes"), (np.zeros((9, 9, 1)),)),
        **dict.fromkeys(("export", "save"), (tmp_path / "new.keras",)),
        "verify": (keras.Sequential(),),
        "evaluate": (None, ["a"]),
    }
    given = load_config("nin_digits") if name != "run" else {"name": "nin_digits"}
    boxes = ([(0, 0, 4, 4)],) if name == "score_boxes" else ()
    assert f"accepted: {accepted}" in refusal(getattr(zoo, name), given, *rest.get(name, ()), *boxes)
    assert not list(tmp_path.iterdir())


def changed(path, folder, **members):
    """A copy of an archive with other contents of some members, None for one that is left out."""
    members = {name.replace("_", "."): content for name, content in members.items()}
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(folder / "changed.keras", "w", zipfile.ZIP_DEFLATED) as new:
        for name in {*old.namelist(), *members}:
            content = members.get(name, old.read(name) if name in old.namelist() else b"")
            if content is not None:
                new.writestr(name, content)
    return folder / "changed.keras"


def test_a_model_file_with_a_wrong_part_is_refused(model, tmp_path):
    with zipfile.ZipFile(model) as archive:
        config, weights = archive.read("config.json"), archive.read("model.weights.h5")
    large = config.replace(b'"units": 3', b'"units": 3000000000')
    assert large != config
    cases = [
        ({"config_json": large}, "weights"),
        ({"config_json": b"[" * 100_000}, "damaged"),
        ({"config_json": b" " * 2**24}, "16,777,216 bytes"),
        ({"config_json": None}, "config.json"),
        ({"zoo_json": b" " * 2**23}, "8,388,608 bytes"),
        ({"zoo_json": json.dumps({"class_names": ["a", "b"]}).encode()}, "accepted: 3"),
        ({"zoo_json": json.dumps({"class_names": ["a", "a", "b"]}).encode()}, "there twice"),
        ({"zoo_json": b"[]"}, "zoo.json"),
        ({"model.weights_h5": weights[: len(weights) // 2]}, "Keras cannot read it"),
        ({"model.weights_h5": None}, ""),
        ({"bomb": b"\0" * 2**27}, "at most 100 times"),
    ]
    for members, named in cases:
        assert named in refusal(zoo.load, changed(model, tmp_path, **members)), members
    assert len(zoo.load(changed(model, tmp_path, zoo_json=b"{}")).weights) == 2
    (tmp_path / "folder.keras").mkdir()
    refusal(zoo.load, tmp_path / "folder.keras")
    refusal(zoo.load, "a" * 5000 + ".keras")


def test_an_encrypted_or_broken_member_is_refused(model, tmp_path):
    content = bytearray(model.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 8] |= 1
    (tmp_path / "secret.keras").write_bytes(content)
    assert "encrypted" in refusal(zoo.load, tmp_path / "secret.keras")
    content = bytearray(model.read_bytes())
    content[content.index(b'"units"') + 1] ^= 1
    (tmp_path / "broken.keras").write_bytes(content)
    assert "CRC" in refusal(zoo.load, tmp_path / "broken.keras")


def test_a_header_that_lies_is_refused_before_anything_is_allocated(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(10), s=np.array("text"))
    assert archives.read_arrays(tmp_path / "a.npz", "data")["x"].tolist() == list(range(10))
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        lying = archive.read("x.npy").replace(b"'shape': (10,), }" + b" " * 11, b"'shape': (1000000000000,), }")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("x.npy", lying)
    assert "claims to be (1000000000000,)" in refusal(archives.read_arrays, tmp_path / "b.npz", "data")


def test_the_callers_settings_are_his_again_after_an_error_too():
    import random

    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_image_data_format("channels_first")
    keras.config.set_epsilon(1e-3)
    try:
        built = zoo.build("nin_digits")
        state = random.getstate(), np.random.get_state()[1].tolist()
        fcn = zoo.convolutionalize(built)
        with pytest.raises(InputError):
            zoo.scan(fcn, np.zeros((2, 2, 1), np.uint8))
        assert state == (random.getstate(), np.random.get_state()[1].tolist())
        found = keras.config.dtype_policy().name, keras.config.image_data_format(), keras.config.epsilon()
        assert found == ("mixed_bfloat16", "channels_first", 1e-3)
    finally:
        keras.config.set_dtype_policy("float32")
        keras.config.set_image_data_format("channels_last")
        keras.config.set_epsilon(1e-7)
    assert {layer.dtype_policy.name for each in (built, fcn) for layer in each.layers} == {"float32"}
    assert built.input_shape == (None, 8, 8, 1) and fcn.output_shape == (None, None, None, 10)


def test_pictures_change_nothing_of_matplotlib_and_take_texts_as_they_are(tmp_path):
    import matplotlib

    from zoo import plots

    with matplotlib.rc_context({"figure.dpi": 33, "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        plots.confusion([[1, 0], [0, 1]], ("$$", "$\\frac$" + "x" * 1000), tmp_path / "a.png")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").stat().st_size


def test_every_stored_config_is_yaml_of_plain_values():
    assert yaml.safe_load(load_config("nin_digits").to_yaml())["version"] == 1


KERAS = "Exception encountered when calling Conv2D.call()."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "ValueError"),
        (" \n\n", "ValueError"),
        ("no such layer\nin any file", "no such layer"),
        (f"{KERAS}\n\n\x1b[1m{{{{function_node a/b}}}} The op is NCHW\x1b[0m\n", "The op is NCHW"),
        (KERAS, "ValueError"),
    ],
)
def test_the_line_that_says_what_failed(text, said):
    assert cause(ValueError(text)) == said
