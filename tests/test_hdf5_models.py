"""Models in HDF5 files: read wherever a model file is, or refused for what they are."""

import json

import h5py
import keras
import numpy as np
import pytest
from conftest import command, noise, randomize
from keras import layers
from PIL import Image

import zoo
from zoo.errors import InputError


def small(*more):
    image = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu", name="conv")(image))
    for layer in more:
        x = layer(x)
    return randomize(keras.Model(image, layers.Dense(3)(layers.Flatten()(x)), name="small"))


@pytest.fixture
def written(tmp_path):
    def write(model, name="net.h5"):
        model.save(tmp_path / name)
        return tmp_path / name

    write.folder = tmp_path
    return write


def changed(file, change):
    """The file with its `model_config` changed."""
    with h5py.File(file, "r+") as content:
        config = json.loads(content.attrs["model_config"])
        change(config)
        content.attrs["model_config"] = json.dumps(config)
    return file


def refusal(file):
    with pytest.raises(InputError) as caught:
        zoo.load(file)
    return str(caught.value)


@pytest.mark.parametrize("name", ["net.h5", "net.hdf5", "NET.H5", "Net.Hdf5", "NET.KERAS"])
def test_it_is_the_same_model(written, name):
    """Whatever the case of the ending's letters, of which Keras knows the lower alone."""
    model, images = small(), noise(2, 8, 8, 3)
    loaded = zoo.load(written(model, name.lower()).rename(written.folder / name))
    np.testing.assert_array_equal(np.asarray(loaded(images)), np.asarray(model(images)))


@pytest.mark.extended
def test_a_compiled_trained_and_nested_one_too(written):
    model = keras.Sequential([small(), layers.Dropout(0.1), layers.Dense(2, name="last")])
    model.compile("adam", "mse")
    model.fit(noise(4, 8, 8, 3), np.zeros((4, 2)), verbose=0)
    loaded, images = zoo.load(written(model)), noise(2, 8, 8, 3)
    np.testing.assert_array_equal(np.asarray(loaded(images)), np.asarray(model(images)))
    assert zoo.verify(loaded, zoo.convolutionalize(loaded)).same_function


def test_every_command_takes_it(capsys, written, tmp_path):
    file = written(small())
    Image.fromarray(noise(20, 20, 3).astype(np.uint8)).save(tmp_path / "image.png")
    fcn, image = tmp_path / "fcn.keras", tmp_path / "image.png"
    for line in (
        ("describe", file),
        ("convert", file, "-o", fcn),
        ("predict", file, image),
        ("scan", file, image, "-o", tmp_path / "scanned"),
        ("scan", fcn, image, "-o", tmp_path / "converted"),
        ("export", file, "-o", tmp_path / "exported.onnx", "--format", "onnx"),
    ):
        code, _, err = command(capsys, *line)
        assert code == 0, (line, err)
    scores = [np.load(tmp_path / name / "scores.npz")["scores"] for name in ("scanned", "converted")]
    np.testing.assert_array_equal(*scores)


def test_a_converted_one_keeps_its_window(written):
    twin = zoo.convolutionalize(small(), padding="valid")
    assert zoo.geometry(zoo.load(written(twin))).window == zoo.geometry(twin).window


def test_weights_of_a_model_are_taken_from_it(written):
    source = randomize(zoo.build("nin_digits"))
    built = zoo.build("nin_digits", weights=written(source))
    for ours, theirs in zip(built.weights, source.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_code_of_its_own_is_named_and_never_run(written, tmp_path):
    @keras.saving.register_keras_serializable("hdf5-test")
    class Mine(layers.Layer):
        def __init__(self, **settings):
            (tmp_path / "made").touch()
            super().__init__(**settings)

        def call(self, x):
            return x

    file = written(small(Mine(name="mine")))
    assert zoo.load(file).get_layer("mine")
    (tmp_path / "made").unlink()
    keras.saving.get_custom_objects().pop("hdf5-test>Mine")
    assert "layer 'mine'" in refusal(file) and "code of its own" in refusal(file)
    lambdas = written(small(layers.Lambda(lambda x: 2 * x, name="twice")), "lambda.h5")
    assert "layer 'twice' (Lambda)" in refusal(lambdas)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ({"class_name": "TFSMLayer", "config": {"name": "graph", "filepath": "there"}}, "layer 'graph' (TFSMLayer)"),
        ({"class_name": "Thing", "module": "os.path", "config": {}}, "(Thing) runs code"),
        ({"class_name": "deserialize", "config": {"name": "a"}}, "layer 'a' (deserialize) runs code"),
        ({"class_name": "TFOpLambda", "config": {"name": "tf.add", "function": "add"}}, "operation of Keras 2"),
    ],
)
def test_parts_that_run_code_are_refused(written, part, named):
    """Wherever they stand, an initializer's place among them."""
    file = changed(written(small()), lambda config: config["config"]["layers"][1]["config"].update(extra=part))
    assert named in refusal(file)


def test_what_this_keras_cannot_read_is_told_how_to_save_anew(written):
    file = changed(written(small()), lambda config: config["config"]["layers"][1]["config"].update(old_setting=3))
    text = refusal(file)
    assert "cannot be read by Keras" in text and "save" in text and "load_weights" in text and "damaged" not in text


def test_weights_alone_are_called_that(tmp_path):
    small().save_weights(tmp_path / "new.weights.h5")
    with h5py.File(tmp_path / "old.h5", "w") as content:
        content.attrs["layer_names"] = [b"conv"]
        content.attrs["keras_version"] = b"2.2.4"
    for name in ("new.weights.h5", "old.h5"):
        assert "holds weights alone" in refusal(tmp_path / name) and "load_weights" in refusal(tmp_path / name)


def test_other_and_damaged_files_are_refused(written, tmp_path):
    (tmp_path / "text.h5").write_text("no model")
    assert "no HDF5 file of a Keras model, or a damaged one" in refusal(tmp_path / "text.h5")
    whole = written(small()).read_bytes()
    for length in (0, 100, 2000, len(whole) // 2, len(whole) - 4000):
        (tmp_path / "cut.h5").write_bytes(whole[:length])
        refusal(tmp_path / "cut.h5")
    with h5py.File(tmp_path / "data.h5", "w") as content:
        content["images"] = np.zeros(3)
    assert "without a Keras model" in refusal(tmp_path / "data.h5")
    for text in ("[]", "{", '{"config": 3}', "[" * 10_000, "[" * 10_000 + "]" * 10_000):
        with h5py.File(written(small()), "r+") as content:
            content.attrs["model_config"] = text
        refusal(tmp_path / "net.h5")


def test_sizes_are_bounded_before_anything_is_made(written):
    def larger(config):
        config["config"]["layers"][1]["config"]["filters"] = 10**12

    assert "bytes are too few" in refusal(changed(written(small()), larger))
    file = written(small())
    with h5py.File(file, "r+") as content:
        content["model_weights"].create_dataset("large", (2**40,), "f4", chunks=(2**20,), compression="gzip")
    assert "at most 100 times as many" in refusal(file)


def test_weights_in_other_files_are_refused(written, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(4096))
    file = written(small())
    with h5py.File(file, "r+") as content:
        content["model_weights"].create_dataset("far", (8,), "f4", external=[(str(tmp_path / "secret"), 0, 32)])
    assert "lies in another file" in refusal(file)
    file = written(small())
    with h5py.File(file, "r+") as content:
        content["model_weights"]["far"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
    assert "is a link" in refusal(file)


def test_only_keras_files_are_written(tmp_path):
    with pytest.raises(InputError, match=r"ends in \.keras"):
        zoo.save(small(), tmp_path / "net.h5")
