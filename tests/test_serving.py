"""A SavedModel as TensorFlow Serving takes it: version folders, signatures, a REST client's JSON, plain clients."""

import base64
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import command, noise
from pictures_corpus import png
from PIL import Image

import zoo
from zoo.errors import Differs
from zoo.evaluation import predict_files
from zoo.exported import image_bytes
from zoo.scores import relative_error

pytestmark = pytest.mark.extended
NAME = "nin_digits"


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """A folder of versions, of which the second was exported beside the first."""
    folder = tmp_path_factory.mktemp("models") / "digits"
    assert zoo.export(zoo.load(NAME), folder / "1") == folder / "1"
    assert zoo.export(zoo.load(NAME), folder / "2", fold=False) == folder / "2"
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Digits in files of PNG and JPEG of mixed sizes."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("files")
    digits = [np.rint(each * 255 / 16).astype(np.uint8) for each in load_digits().images[:8]]
    images = {f"{index}.png": digit for index, digit in enumerate(digits)}
    images |= {"large.png": np.pad(digits[0], ((3, 9), (8, 1))), "small.png": digits[1][:5, 2:]}
    images |= {
        "plain.jpeg": digits[2],
        "large.jpeg": np.tile(digits[3], (5, 7)),
        "colour.png": np.stack([digits[4]] * 3, -1),
    }
    for name, pixels in images.items():
        Image.fromarray(pixels).save(folder / name, **({"quality": 90} if name.endswith("jpeg") else {}))
    return [folder / name for name in images]


@pytest.fixture(scope="module")
def scores(files):
    return {path: answer.scores for path, answer in zip(files, predict_files(zoo.load(NAME), files), strict=True)}


def check(given, scores):
    for (path, own), theirs in zip(scores.items(), given, strict=True):
        assert relative_error(theirs, own) <= (1e-3 if path.suffix == ".jpeg" else 1e-5), path


def served(folder):
    """A signature as a plain client loads it."""
    import tensorflow as tf

    model = tf.saved_model.load(str(folder))
    return lambda contents: (model and model.signatures["predict_bytes"])(image_bytes=tf.constant(contents, tf.string))


def test_version_folders_are_as_tensorflow_serving_looks_for_them(versions):
    """Folders that are called by numbers alone, each with saved_model.pb and variables; the largest is served."""
    assert sorted(each.name for each in versions.iterdir()) == ["1", "2"]
    for folder in versions.iterdir():
        assert {"saved_model.pb", "variables"} <= {each.name for each in folder.iterdir()}


def test_the_command_line_tool_shows_and_runs_it(versions, files, scores, tmp_path):
    tool = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    which = ["--dir", str(versions / "1"), "--tag_set", "serve", "--signature_def"]
    shown = {}
    for name in ("serving_default", image_bytes.SIGNATURE):
        line = [*tool, "show", *which, name]
        shown[name] = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    assert "inputs['image'] tensor_info:\n      dtype: DT_UINT8\n      shape: (-1, 8, 8, 1)" in shown["serving_default"]
    assert "inputs['image_bytes'] tensor_info:\n      dtype: DT_STRING\n      shape: (-1)" in shown["predict_bytes"]
    assert all(
        "outputs['logits'] tensor_info:\n      dtype: DT_FLOAT\n      shape: (-1, 10)" in each
        for each in shown.values()
    )
    assert all("Method name is: tensorflow/serving/predict" in each for each in shown.values())
    np.save(tmp_path / "files.npy", np.array([path.read_bytes() for path in files]))
    given = ["--inputs", f"image_bytes={tmp_path}/files.npy", "--outdir", str(tmp_path)]
    subprocess.run([*tool, "run", *which, "predict_bytes", *given], check=True, capture_output=True)
    check(np.load(tmp_path / "logits.npy"), scores)


def test_the_json_of_a_rest_client_is_what_the_signature_takes(versions, files, scores):
    """TensorFlow Serving makes strings of objects with the key b64, and stacks them (its REST API, "Encoding binary
    values")."""
    rows = [{"image_bytes": {"b64": base64.b64encode(path.read_bytes()).decode()}} for path in files]
    body = json.dumps({"signature_name": "predict_bytes", "instances": rows})

    def decoded(value):
        return base64.b64decode(value["b64"]) if isinstance(value, dict) and set(value) == {"b64"} else value

    request = json.loads(body)
    contents = [decoded(row["image_bytes"]) for row in request["instances"]]
    assert contents == [path.read_bytes() for path in files]
    response = json.dumps({"predictions": served(versions / "1")(contents)["logits"].numpy().tolist()})
    check(np.array(json.loads(response)["predictions"]), scores)


CLIENT = """
import sys, json, pathlib
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
contents = [pathlib.Path(path).read_bytes() for path in sys.argv[2:]]
given = model.signatures["predict_bytes"](image_bytes=tf.constant(contents, tf.string))
assert "zoo" not in sys.modules
print(json.dumps(given["logits"].numpy().tolist()))
"""


def test_a_client_without_zoo_or_keras_has_the_scores_of_zoo_predict(versions, files, scores):
    line = [sys.executable, "-c", CLIENT, versions / "1", *files]
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    check(np.array(json.loads(done.stdout)), scores)


def test_png_files_are_the_arrays_of_serving_default_to_the_bit(versions, files):
    """The pixels are the same, so nothing but they decides: one image at a time, since batches may round otherwise."""
    import tensorflow as tf

    model = tf.saved_model.load(str(versions / "1"))
    pixels = [answer.pixels for answer in predict_files(zoo.load(NAME), files)]
    for path, image in zip(files, pixels, strict=True):
        of_file = model.signatures["predict_bytes"](image_bytes=tf.constant([path.read_bytes()]))["logits"].numpy()
        of_array = model.signatures["serving_default"](image=tf.constant(image[None]))["logits"].numpy()
        if path.suffix == ".png":
            np.testing.assert_array_equal(of_file, of_array)
        assert relative_error(of_file, of_array) <= 1e-3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (png(noise(9, 9).astype(np.uint16)), r"image_bytes\[1\]: received 16 bits a sample; accepted: 8"),
        (png(noise(9, 9, 3).astype(np.uint8)), r"image_bytes\[1\]: received 3 channels in colour; accepted: grey"),
        (png(noise(9, 9).astype(np.uint8))[:60], "Invalid PNG data"),
        (b"GIF89a", r"image_bytes\[1\]: unknown format; accepted: PNG and JPEG"),
    ],
)
def test_a_file_that_cannot_be_taken_is_answered_with_what_is_wrong(versions, content, words):
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        served(versions / "1")([png(noise(8, 8).astype(np.uint8)), content])


def test_a_signature_that_answers_otherwise_is_not_kept(tmp_path, monkeypatch, capsys):
    """As that of a decoder with other rounding, or of a centre that lies a pixel beside that of `zoo predict`."""
    import tensorflow as tf

    fitted = image_bytes._fitted
    monkeypatch.setattr(image_bytes, "_fitted", lambda pixels, form: fitted(tf.roll(pixels, 1, 1), form))
    with pytest.raises(Differs, match="tensorflow gives scores of a relative error .* for PNG files; accepted: 1e-04"):
        zoo.export(zoo.load(NAME), tmp_path / "1")
    code, _, error = command(capsys, "export", NAME, "-o", tmp_path / "1")
    assert code == 1 and "PNG files" in error
    assert list(tmp_path.iterdir()) == []


def test_where_only_the_signature_fails_no_layer_is_blamed(tmp_path, monkeypatch):
    import tensorflow as tf

    fitted, checked = image_bytes._fitted, image_bytes._checked
    monkeypatch.setattr(
        image_bytes, "_fitted", lambda pixels, form: fitted(checked(pixels, tf.size(pixels) < 0, ["no room"]), form)
    )
    with pytest.raises(Differs, match="runs the model on images, and fails on files of them, by predict_bytes"):
        zoo.export(zoo.load(NAME), tmp_path / "1")
    assert list(tmp_path.iterdir()) == []


def test_the_report_has_the_files(versions):
    from zoo.exported.formats import FORMATS

    report = FORMATS["saved_model"].carried(versions / "1").verified
    assert report.error_of_files <= 1e-4 and "; files of PNG and JPEG within" in report.line()
