import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import randomize
from PIL import Image

import zoo as package
from zoo.cli import main
from zoo.cli import train as train_command
from zoo.cli import zoo as group
from zoo.saving import attach, card

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


def test_list_names_every_model(capsys):
    code, out, _ = call(capsys, "list")
    assert code == 0
    assert all(name in out for name in package.list_models())


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

    code, out, _ = call(capsys, "export", fcn, "-o", tmp_path / "exported")
    assert code == 0 and (tmp_path / "exported" / "saved_model.pb").is_file()


def test_global_pooling_by_command(capsys, model_file, tmp_path):
    code, out, _ = call(capsys, "convert", model_file, "-o", tmp_path / "all.keras", "--pooling", "global")
    assert code == 0 and "one answer" in out
    assert package.load(tmp_path / "all.keras").input_shape == (None, None, None, 1)


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
