"""Files that were made by version 1 still load, resume and finish; `frozen/README.md` tells how they came about."""

import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import command

import zoo

FROZEN = Path(__file__).with_name("frozen")
# The time of the image in the keys of the frozen scans, which a checkout does not keep.
TIME = 10**18


@pytest.fixture
def frozen(tmp_path):
    """A copy of the files, to be written to."""
    copy = tmp_path / "frozen"
    shutil.copytree(FROZEN, copy)
    os.utime(copy / "image.npy", ns=(TIME, TIME))
    return copy


@pytest.fixture
def whole(frozen):
    """What the frozen converted model gives for the frozen image."""
    return np.load(frozen / "scan" / "scores.npz")["scores"]


def test_models_load_and_know_what_travelled_with_them(frozen):
    for file in ("classifier.keras", "converted.keras", "run"):
        assert len(zoo.load(frozen / file).weights)
    converted = zoo.load(frozen / "converted.keras")
    assert zoo.geometry(converted).window == (8, 8)
    image = np.load(frozen / "image.npy")
    image = image[None, :8, :8].astype(np.float32)
    a, b = (np.asarray(zoo.load(frozen / file)(image)).ravel() for file in ("classifier.keras", "converted.keras"))
    np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max())
    assert keras.models.load_model(frozen / "converted.keras", compile=False).output_shape[-1] == 10


def test_a_finished_run_is_taken_as_finished_and_used(capsys, frozen):
    before = (frozen / "run" / "evaluation.json").read_bytes()
    code, out, err = command(capsys, "train", frozen / "tiny.yaml", "--workdir", frozen / "run")
    assert code == 0 and "this run is finished" in out and "canvas accuracy 0% of 9 places" in out, out + err
    assert (frozen / "run" / "evaluation.json").read_bytes() == before
    code, out, err = command(capsys, "evaluate", frozen / "run")
    assert code == 0 and f"accuracy {json.loads(before)['accuracy']:.2%}" in out, out + err
    code, out, err = command(capsys, "plot", frozen / "run")
    assert code == 0 and "curves.png" in out, out + err


@pytest.mark.extended
def test_a_half_finished_run_goes_on(capfd, frozen):
    code, out, err = command(capfd, "train", frozen / "tiny.yaml", "--workdir", frozen / "half_run")
    assert code == 0 and "resuming from step 6" in out, out + err
    there, here = (json.loads((frozen / each / "evaluation.json").read_text()) for each in ("run", "half_run"))
    assert there["data_fingerprint"] == here["data_fingerprint"] and abs(there["loss"] - here["loss"]) < 0.2
    assert there["scene"]["n"] == here["canvas"]["n"] == 9 and "scene" not in here


def test_a_run_that_did_not_begin_is_begun(capfd, frozen):
    shutil.rmtree(frozen / "half_run" / "checkpoints")
    code, out, err = command(capfd, "train", frozen / "tiny.yaml", "--workdir", frozen / "half_run", "canvas=null")
    assert code == 0 and "test accuracy" in out and "resuming" not in out, out + err


@pytest.mark.parametrize("kind", ["npy", "zarr"])
def test_a_half_finished_scan_goes_on_where_it_was(capsys, frozen, whole, kind, monkeypatch):
    from zoo.scanning.store import Store

    written, write = [], Store.write
    monkeypatch.setattr(Store, "write", lambda self, index, *rest: (written.append(index), write(self, index, *rest)))
    folder = frozen / f"half_scan_{kind}"
    options = ("--tile", "32", "--format", kind)
    code, out, err = command(capsys, "scan", frozen / "converted.keras", frozen / "image.npy", "-o", folder, *options)
    assert code == 0, out + err
    assert 0 not in written and 4 not in written and 5 in written
    if kind == "npy":
        scores = np.load(folder / "scores.npy")
    else:
        import zarr

        scores = zarr.open_array(folder / "scores.zarr", mode="r")[:]
    np.testing.assert_allclose(scores, whole, atol=1e-4 * np.abs(whole).max())
    assert not list(folder.glob("*.part")) and not list(folder.glob("*.journal"))


def test_a_finished_scan_is_replaced_by_the_same_command(capsys, frozen, whole):
    line = ("scan", frozen / "converted.keras", frozen / "image.npy", "-o", frozen / "scan", "--tile", "32")
    code, out, err = command(capsys, *line)
    assert code == 0, out + err
    scores = np.load(frozen / "scan" / "scores.npz")["scores"]
    np.testing.assert_allclose(scores, whole, atol=1e-4 * np.abs(whole).max())


# Of the configs that were shipped with version 1: the names of the run directories that users have.
DIGESTS = {
    "inception_cifar10": "f618cdb3",
    "nin_cifar10": "5d55636d",
    "nin_cifar10_wide": "116d59cc",
    "nin_digits": "396632c1",
    "nin_digits_tuned": "44653c05",
    "nin_mnist": "1fb7f541",
    "nin_mnist_bn": "b192d969",
    "resnet164_v2_cifar10": "3b00efed",
    "resnet29_cifar10": "da2c8bc1",
    "resnet_digits": "367eef19",
}


def test_digests_are_those_of_version_1():
    assert {name: zoo.load_config(name).digest for name in DIGESTS} == DIGESTS
    recipe = ["train.epochs=200", "train.warmup=0.025", "train.label_smoothing=0", "train.optimizer.weight_decay=0.002"]
    assert zoo.load_config("nin_cifar10_bn", recipe).digest == "aee295ef"
    assert zoo.load_config(FROZEN / "tiny.yaml").digest == "ac196330"
    assert zoo.load_config("nin_digits", ["seed=3", "scene.size=[400,400]"]).digest == "e2639f4b"


def test_an_earlier_name_of_a_module_is_imported_still():
    from zoo import card, model_files, saving

    assert all(getattr(saving, name) in (*vars(card).values(), *vars(model_files).values()) for name in saving.__all__)
