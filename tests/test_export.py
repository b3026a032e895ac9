import errno
import json
import resource
import subprocess
import sys

import numpy as np
import pytest
from conftest import noise, randomize

import zoo
from zoo.errors import InputError
from zoo.files import check_output, replacing
from zoo.network.network import Network
from zoo.scores import relative_error

SIZES = [(28, 28), (45, 60), (101, 33)]


@pytest.fixture(scope="module")
def fcn():
    return zoo.convolutionalize(randomize(zoo.build("nin_mnist_bn")))


@pytest.fixture
def images():
    return {size: noise(2, *size, 1).astype(np.uint8) for size in SIZES}


@pytest.mark.extended
def test_a_saved_model_runs_in_a_process_without_zoo_at_three_sizes(fcn, images, tmp_path):
    path = zoo.export(fcn, tmp_path / "exported")
    np.savez(tmp_path / "images.npz", **{f"{h}x{w}": batch for (h, w), batch in images.items()})
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        f"serve = tf.saved_model.load(r'{path}').signatures['serving_default']\n"
        "(_, inputs) = serve.structured_input_signature\n"
        "(name, spec), = inputs.items()\n"
        "assert spec.dtype == tf.uint8 and spec.shape.as_list() == [None, None, None, 1], spec\n"
        f"images = np.load(r'{tmp_path}/images.npz')\n"
        "scores = {key: serve(image=tf.constant(images[key]))['logits'].numpy() for key in images.files}\n"
        f"np.savez(r'{tmp_path}/scores.npz', **scores)\n"
        "assert 'zoo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    with np.load(tmp_path / "scores.npz") as scores:
        for (height, width), batch in images.items():
            assert relative_error(scores[f"{height}x{width}"], np.asarray(fcn(batch))) <= 1e-5
    carried = json.loads((path / "assets.extra" / "zoo.json").read_text())
    assert carried["card"]["window"] == [28, 28]
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("name", "format", "text"),
    [("out", "savedmodel", "did you mean 'saved_model'"), ("out.bin", "onnx", "ends in .onnx")],
)
def test_bad_requests_are_refused(fcn, tmp_path, name, format, text):
    with pytest.raises(InputError, match=text):
        zoo.export(fcn, tmp_path / name, format=format)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(fcn, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists already"):
        zoo.export(fcn, tmp_path / "out")


@pytest.mark.parametrize("place", ["afile/out", "afile/deeper/out"])
def test_a_path_below_a_file_is_refused_before_any_work(fcn, tmp_path, place):
    (tmp_path / "afile").write_text("kept")
    for attempt in (zoo.export, lambda model, path: zoo.save(model, path.with_suffix(".keras"))):
        with pytest.raises(InputError, match=r"afile.* is a file; accepted: a folder to write into"):
            attempt(fcn, tmp_path / place)
    assert [path.name for path in tmp_path.rglob("*")] == ["afile"]


@pytest.mark.parametrize(
    ("path", "options", "text"),
    [
        ("folder", {}, "'.*folder': is a folder; accepted: the path of a file"),
        ("afile", {"folder": True}, "'.*afile': is a file; accepted: a folder"),
        ("x.h5", {"ending": ".keras"}, "accepted: a name that ends in .keras"),
    ],
)
def test_what_is_in_the_way_of_an_output_is_named(tmp_path, path, options, text):
    (tmp_path / "folder").mkdir()
    (tmp_path / "afile").touch()
    with pytest.raises(InputError, match=text):
        check_output(tmp_path / path, **options)
    if not options:
        with pytest.raises(InputError, match=text), replacing(tmp_path / path):
            pass
    assert check_output(tmp_path / "new" / "out.keras", ending=".keras") == tmp_path / "new" / "out.keras"


def test_a_failed_write_names_the_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "report.json"
    with pytest.raises(OSError, match="No space left") as failed, replacing(path) as file:
        file.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", str(file))
    assert failed.value.filename == str(path)
    with pytest.raises(OSError, match="write failed.*report.json'"), replacing(path):
        raise OSError("Can't write data (file write failed)")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_os_error_that_names_the_path(fcn, tmp_path):
    """A limit on the size of files stands in for the disk; TensorFlow has errors of its own for it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        with pytest.raises(OSError, match="TensorFlow cannot write it .*out'"):
            zoo.export(fcn, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "text"), [(b"", "not a .keras archive"), (b"PK\x03\x04broken", "not a .keras archive")]
)
def test_damaged_model_files_are_named(tmp_path, content, text):
    path = tmp_path / "damaged.keras"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"damaged.keras.*{text}"):
        zoo.load(path)


def test_missing_model_files_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        zoo.load(tmp_path / "gone.keras")
    with pytest.raises(InputError, match="has no model.keras"):
        zoo.load(tmp_path)
    with pytest.raises(InputError, match="ends in .keras"):
        zoo.save(zoo.build("nin_digits"), tmp_path / "model.h5")


def test_a_file_of_plain_keras_loads_with_an_empty_card(tmp_path):
    import keras

    image = keras.Input((8, 8, 1))
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(image)))
    model.save(tmp_path / "plain.keras")
    assert Network.of(zoo.load(tmp_path / "plain.keras")).class_names == ("0", "1", "2")


def test_code_in_a_file_is_not_run(tmp_path):
    import keras

    image = keras.Input((8, 8, 1))
    model = keras.Model(image, keras.layers.Lambda(lambda x: x + 1)(image))
    model.save(tmp_path / "code.keras")
    with pytest.raises(InputError, match="layer 'lambda' .Lambda. runs code of its own"):
        zoo.load(tmp_path / "code.keras")
