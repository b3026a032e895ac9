"""Shipped weights: what the index says is true of the files, and a name is a model everywhere, without a network."""

import os
import shutil
import socket
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import command, some_by_default
from PIL import Image

import zoo
from zoo import data, model_files, shipped, shipping
from zoo.card import card
from zoo.catalogue import list_models, resolve
from zoo.config import load_config
from zoo.dense_evaluation import evaluate_dense
from zoo.environment import versions
from zoo.errors import InputError
from zoo.evaluation import evaluate
from zoo.scores import relative_error

INDEX = shipped.index()
NAMES = list(INDEX.models)
# A minute of 10,000 images each; nin_cifar10_valid is measured on the same.
LONG = ("inception_cifar10", "nin_cifar10_bn", "nin_cifar10_padded")
# How far logits may be from those that were stored, computed in float64, by other versions and on another machine.
TOLERANCES = {"float32": 1e-4, "float64": 1e-7}
# Where the data are that are in no place of their own.
SCENES = {"blood_cells": ("blood_cells/images", "blood_cells/annotations")}


@pytest.fixture
def page(tmp_path):
    """An image with a bundled digit in the middle."""
    image = np.zeros((24, 24), np.uint8)
    image[8:16, 8:16] = shipping.fixed_images(8, 8, 1)[4, ..., 0]
    Image.fromarray(image).save(tmp_path / "page.png")
    return tmp_path / "page.png"


def test_the_files_are_those_of_the_index_and_together_they_are_small():
    files = {path.name for path in shipped.FOLDER.iterdir()}
    assert files == {shipped.INDEX, *(f"{name}.keras" for name in NAMES)} and {"nin_digits", "nin_mnist_valid"} <= {
        *NAMES
    }
    assert sum(path.stat().st_size for path in shipped.FOLDER.iterdir()) <= 12e6
    for name, row in INDEX.models.items():
        file = shipped.shipped_file(name)
        assert file.stat().st_size == row.bytes and shipped.checksum(file) == row.sha256
        assert INDEX.data[row.data].licence and INDEX.data[row.data].url


@pytest.mark.parametrize("name", NAMES)
def test_a_file_loads_with_keras_alone_in_float32_with_values_of_float16(name):
    model = keras.models.load_model(shipped.shipped_file(name))
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    for weight in model.weights:
        value = np.asarray(weight)
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, value.astype(np.float16))


@pytest.mark.parametrize("dtype", some_by_default(TOLERANCES, "float32"))
@pytest.mark.parametrize("name", NAMES)
def test_an_upgrade_has_moved_no_logits(name, dtype):
    row = INDEX.models[name]
    error = relative_error(np.array(shipping.logits(zoo.load(name), dtype)), np.array(row.logits))
    stored, here = (", ".join(f"{key} {value}" for key, value in each.items()) for each in (row.versions, versions()))
    assert error <= TOLERANCES[dtype], f"{name}: logits are {error:.1e} off those stored by {stored}; here are {here}"


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_one_of_the_catalogue_as_its_config_trains_it(name):
    row = INDEX.models[name]
    assert name in list_models()
    assert load_config(row.config, row.overrides).model == resolve(name)
    assert zoo.describe(zoo.build(name)).trainable_params == row.params
    assert row.command().startswith(f"zoo train {row.config}")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=() if name == "nin_digits" else pytest.mark.slow if name in LONG else pytest.mark.extended
        )
        for name in NAMES
    ],
)
def test_the_accuracy_is_what_the_file_reaches_here(name, request):
    row = INDEX.models[name]
    places = []
    if row.data in SCENES:
        folder = os.environ.get("ZOO_SCENES_DIR") or pytest.skip("ZOO_SCENES_DIR names no folder with labelled images")
        places = [
            f"data.{key}={folder}/{place}" for key, place in zip(("dir", "labels"), SCENES[row.data], strict=True)
        ]
    elif row.data != "digits":
        request.getfixturevalue("tfds_dir")
    dataset, model = data.load(load_config(row.config, [*row.overrides, *places])), zoo.load(name)
    measured = evaluate(model, dataset.test, dataset.class_names)
    # Two images may change sides by rounding on another machine.
    assert measured.n == row.n and measured.accuracy == pytest.approx(row.accuracy, abs=2 / row.n)
    assert measured.expected_calibration_error == pytest.approx(row.expected_calibration_error, abs=2 / row.n)
    if row.f1:
        found = evaluate_dense(model, dataset.scenes)
        assert {key: found.classes[key].f1 for key in row.f1} == pytest.approx(row.f1, abs=0.005)


def test_build_takes_the_shipped_weights_and_what_travels_with_them():
    images = shipping.fixed_images(8, 8, 1).astype("float32")
    model, loaded = zoo.build("nin_digits", weights="pretrained"), zoo.load("nin_digits")
    np.testing.assert_array_equal(np.asarray(model(images)), np.asarray(loaded(images)))
    assert card(model) == card(loaded) and card(model).class_names == tuple("0123456789")
    opened = zoo.build("nin_digits", weights="pretrained", image_size=None)
    assert card(opened).class_names and card(opened).image_size is None and opened.input_shape == (None, None, None, 1)
    tuned = zoo.build("nin_digits", weights="pretrained", num_classes=3)
    assert tuned.output_shape == (None, 3) and not card(tuned).class_names
    first = [np.asarray(each.get_layer("mlpconv1_conv1").kernel) for each in (tuned, loaded)]
    np.testing.assert_array_equal(*first)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: zoo.build("resnet50", weights="pretrained"),
            "weights: received 'pretrained' for 'resnet50'; accepted",
        ),
        (lambda: zoo.load("resnet50"), "model 'resnet50': no such file; accepted: a .keras or .h5 file"),
    ],
)
def test_a_name_without_weights_is_told_those_that_have_some(call, text):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value).startswith(text) and ", ".join(NAMES) in str(error.value)


def test_a_damaged_file_is_named(monkeypatch, tmp_path):
    shutil.copytree(shipped.FOLDER, tmp_path / "pretrained")
    file = tmp_path / "pretrained" / "nin_digits.keras"
    file.write_bytes(file.read_bytes()[:-1])
    monkeypatch.setattr(shipped, "FOLDER", file.parent)
    with pytest.raises(InputError, match="nin_digits.keras: missing or damaged"):
        zoo.load("nin_digits")


def test_a_file_or_run_of_the_users_own_comes_first_and_an_empty_folder_does_not(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nin_digits").mkdir()
    assert model_files.file_of("nin_digits") == shipped.shipped_file("nin_digits")
    assert model_files.files_of(Path("nin_digits")) == [shipped.shipped_file("nin_digits")]
    (tmp_path / "nin_digits" / "model.keras").touch()
    (tmp_path / "nin_digits" / "config.yaml").touch()
    assert model_files.file_of("nin_digits").parts == ("nin_digits", "model.keras")
    assert [file.name for file in model_files.files_of(tmp_path / "nin_digits")] == ["model.keras", "config.yaml"]


def test_a_name_is_a_model_on_no_network(capsys, monkeypatch, page, tmp_path):
    def refused(*arguments, **options):
        raise OSError("no network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    code, out, err = command(capsys, "predict", "nin_digits", page)
    assert code == 0 and "page.png: 0 100" in out, out + err
    code, out, err = command(capsys, "scan", "nin_digits", page, "-o", tmp_path / "nin_digits", "--no-check")
    assert code == 0 and "9 x 9 cells" in out and (tmp_path / "nin_digits" / "scores.npz").is_file(), out + err
    (tmp_path / "boxes.csv").write_text("top,left,bottom,right\n8,8,16,16\n")
    code, out, err = command(capsys, "regions", "nin_digits", page, tmp_path / "boxes.csv", "-o", tmp_path / "of.csv")
    assert code == 0 and "1 boxes: 0 1" in out, out + err
    code, out, err = command(capsys, "evaluate", "nin_digits")
    assert code == 0 and f"accuracy {INDEX.models['nin_digits'].accuracy:.2%}" in out, out + err


@pytest.mark.extended
def test_a_name_is_a_model_for_every_other_command(capsys, page, tmp_path):
    for words in (
        ("describe", "nin_digits"),
        ("convert", "nin_digits", "-o", tmp_path / "fcn.keras", "--image", page),
        ("export", "nin_digits", "-o", tmp_path / "exported"),
        ("plot", "nin_digits", "--cell", "4,4", "--image", page, "-o", tmp_path / "cell.png"),
        ("evaluate", shipped.shipped_file("nin_digits").parents[2] / "tests/frozen/run", "--against", "nin_digits"),
    ):
        code, out, err = command(capsys, *words)
        assert code == (1 if "--against" in words else 0), out + err


def test_processes_are_given_the_file(capsys, monkeypatch, page, tmp_path):
    given = []
    monkeypatch.setattr("zoo.scanning.fleet.scan_many", lambda model, *others, **options: given.append(model) or [])
    folder = tmp_path / "pages"
    folder.mkdir()
    shutil.copy(page, folder)
    assert command(capsys, "scan", "nin_digits", folder, "-o", tmp_path / "scanned", "--workers", "2")[0] == 0
    assert given == [shipped.shipped_file("nin_digits")]


def test_the_list_of_those_that_come_trained(capsys):
    code, out, _ = command(capsys, "list", "--pretrained")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 1 + len(NAMES)
    row = INDEX.models["nin_digits"]
    (line,) = (line for line in lines if line.startswith("nin_digits "))
    assert f"{row.accuracy:.2%}" in line and f" {row.n} " in line and line.endswith(INDEX.data["digits"].licence)
    code, out, _ = command(capsys, "list", "--pretrained", "nin_m*")
    assert code == 0 and "nin_digits" not in out and "nin_mnist_valid" in out
    assert command(capsys, "list", "--pretrained", "--compare")[0] == 2
    code, _, err = command(capsys, "list", "--pretrained", "resnet50")
    assert code == 2 and "pattern" in err
