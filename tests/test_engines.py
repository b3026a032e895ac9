import importlib.util
import logging

import keras
import numpy as np
import pytest
from conftest import noise, randomize
from keras import layers
from test_backends import run

import zoo
from zoo.engines import factory, keras_engine, lighter_graph
from zoo.errors import InputError
from zoo.network.network import Network
from zoo.scores import relative_error


def make_engine(model, *options):
    """An engine for a model."""
    return factory.make_engine(Network.of(model), *options)


SIZES = [(1, 41, 57), (3, 64, 36), (1, 41, 57)]


def like_vgg(dtype="float32"):
    """Convolutions, some normalised, then Flatten and two Dense layers; H is not W."""
    image = keras.Input((20, 28, 3), name="image", dtype=dtype)
    x = layers.Rescaling(1 / 128, -1, dtype=dtype)(image)
    x = layers.Conv2D(6, 3, padding="same", strides=2, dtype=dtype)(x)
    x = layers.BatchNormalization(scale=False, dtype=dtype)(x)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, dilation_rate=2, dtype=dtype)(x)
    x = layers.BatchNormalization(center=False, epsilon=0.1, dtype=dtype)(x)
    x = layers.MaxPooling2D(dtype=dtype)(x)
    x = layers.Dense(24, activation="tanh", dtype=dtype)(layers.Flatten(dtype=dtype)(x))
    x = layers.Dense(5, use_bias=False, activation="softmax", dtype=dtype)(x)
    return zoo.convolutionalize(randomize(keras.Model(image, x, name="like_vgg")))


def where_nothing_folds():
    """Normalisations that look like ones to fold: after an activation, a second reader, another kind of layer."""
    image = keras.Input((None, None, 2), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(image))
    y = layers.Conv2D(4, 1)(x)
    x = layers.Add()([y, layers.BatchNormalization()(y)])
    x = layers.DepthwiseConv2D(3)(x)
    x = layers.BatchNormalization()(x)
    x = layers.SeparableConv2D(3, 3)(x)
    return randomize(keras.Model(image, layers.BatchNormalization()(x), name="where_nothing_folds"))


def errors(fcn, engine):
    """The engine against the model itself, at three sizes, the first one twice."""
    images = [noise(batch, *size, fcn.inputs[0].shape[-1]) for batch, *size in SIZES]
    return [relative_error(engine(batch), np.asarray(fcn(batch, training=False))) for batch in images]


@pytest.mark.extended
@pytest.mark.parametrize(
    "name", ["nin_mnist_bn", "nin_cifar10", "resnet29_cifar10", "inception_cifar10", "squeezenet1_1"]
)
def test_the_engine_gives_the_model_s_scores(name):
    options = {"image_size": (36, 36)} if name == "squeezenet1_1" else {}
    fcn = zoo.convolutionalize(randomize(zoo.build(name, **options)))
    assert max(errors(fcn, make_engine(fcn))) <= 1e-5


@pytest.mark.parametrize(
    ("large", "together", "constants"), [(0, 512, 2**30), (0, 3, 2**30), (2**24, 512, 2**30), (2**24, 512, 9000)]
)
def test_large_kernels_by_rows_and_folded_normalisations_are_exact(large, together, constants, monkeypatch):
    monkeypatch.setattr(lighter_graph, "LARGE_KERNEL", large)
    monkeypatch.setattr(lighter_graph, "_FILTERS", together)
    monkeypatch.setattr(keras_engine, "_MOST_CONSTANTS", constants)
    fcn = like_vgg("float64")
    assert max(errors(fcn, make_engine(fcn))) <= 1e-12


def test_what_replaces_a_step_is_what_ran(monkeypatch):
    """Without this the other tests would pass on an engine that replaces nothing."""
    monkeypatch.setattr(lighter_graph, "LARGE_KERNEL", 0)
    calls = {"folded": 0, "by_rows": 0}

    def counted(name, made):
        def count(*args):
            calls[name] += 1
            return made(*args)

        return count

    monkeypatch.setattr(lighter_graph, "folded_weights", counted("folded", lighter_graph.folded_weights))
    monkeypatch.setattr(lighter_graph.LighterGraph, "_by_rows", counted("by_rows", lighter_graph.LighterGraph._by_rows))
    make_engine(like_vgg())
    assert calls == {"folded": 2, "by_rows": 2}


def test_normalisations_that_do_not_follow_a_convolution_alone_are_kept(monkeypatch):
    fcn = where_nothing_folds()
    monkeypatch.setattr(lighter_graph, "folded_weights", lambda *_: pytest.fail("folded"))
    assert max(errors(fcn, make_engine(fcn))) <= 1e-5


def test_a_graph_built_with_training_on_runs_as_inference():
    image = keras.Input((None, None, 2), name="image")
    x = layers.Dropout(0.5)(layers.Conv2D(4, 3)(image), training=True)
    model = randomize(keras.Model(image, layers.BatchNormalization()(x, training=True)))
    assert max(errors(model, make_engine(model))) <= 1e-5


def test_a_classifier_gives_a_vector_and_whole_numbers_are_taken():
    model = randomize(zoo.build("nin_digits"))
    batch = noise(5, 8, 8, 1).astype(np.uint8)
    given = make_engine(model)(batch)
    assert given.shape == (5, 10)
    assert relative_error(given, np.asarray(model(batch, training=False))) <= 1e-5


@pytest.mark.parametrize(("precision", "tolerance"), [(None, 1e-5), ("float32", 1e-5), ("bfloat16", 3e-2)])
@pytest.mark.parametrize("make", [like_vgg, lambda: zoo.convolutionalize(randomize(zoo.build("nin_mnist_bn")))])
@pytest.mark.extended
def test_openvino_gives_the_model_s_scores(make, precision, tolerance):
    openvino = pytest.importorskip("openvino")
    if precision == "bfloat16" and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("the processor has no bfloat16")
    fcn = make()
    found = max(errors(fcn, make_engine(fcn, "openvino", precision)))
    assert found <= tolerance
    if precision == "bfloat16":
        assert found > 1e-5  # what was asked for is what ran


def test_bad_requests_are_refused(monkeypatch):
    pytest.importorskip("openvino")
    fcn = zoo.convolutionalize(zoo.build("nin_digits"))
    for request, text in [
        (("openvin",), "unknown engine 'openvin' .did you mean 'openvino'.*accepted: keras, openvino"),
        (("openvino", "bfloat"), "unknown precision 'bfloat' .did you mean 'bfloat16'"),
        (("keras", "bfloat16"), "received 'bfloat16' with the engine 'keras'; accepted: none, it is the model's own"),
    ]:
        with pytest.raises(InputError, match=text):
            make_engine(fcn, *request)
    with pytest.raises(InputError, match="'like_vgg_fcn': computes in float64; accepted by.*float32"):
        make_engine(like_vgg("float64"), "openvino")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    with pytest.raises(InputError, match=r"needs openvino; pip install 'bottleneck-zoo\[openvino\]'"):
        make_engine(fcn, "openvino")


@pytest.mark.extended
def test_a_processor_without_bfloat16_says_so(monkeypatch):
    openvino = pytest.importorskip("openvino")

    class Core:
        def get_property(self, *_):
            return ["FP32"]

    monkeypatch.setattr(openvino, "Core", Core)
    with pytest.raises(InputError, match="received 'bfloat16', which this processor does not have"):
        make_engine(zoo.convolutionalize(zoo.build("nin_digits")), "openvino", "bfloat16")


@pytest.mark.extended
def test_jax_without_tensorflow_has_the_same_engine(tmp_path):
    pytest.importorskip("jax")
    fcn = zoo.convolutionalize(randomize(zoo.build("nin_mnist_bn")))
    zoo.save(fcn, tmp_path / "model.keras")
    image = noise(2, 60, 50, 1)
    np.save(tmp_path / "image.npy", image)
    run(
        "from zoo.engines import factory, lighter_graph\n"
        "lighter_graph.LARGE_KERNEL = 0\n"
        "network = zoo.Network.of(zoo.load('model.keras'))\n"
        "np.save('scores.npy', factory.make_engine(network)(np.load('image.npy')))\n"
        "try: factory.make_engine(network, 'openvino')\n"
        "except factory.InputError as error: np.save('refused.npy', str(error))\n",
        tmp_path,
    )
    assert relative_error(np.load(tmp_path / "scores.npy"), np.asarray(fcn(image, training=False))) <= 1e-5
    refused = str(np.load(tmp_path / "refused.npy"))
    assert "KERAS_BACKEND=tensorflow" in refused or "pip install 'bottleneck-zoo[openvino]'" in refused


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow alone warns")
def test_a_loop_of_scans_is_not_warned_of(model_file):
    """Every scan makes an engine, whose function TensorFlow would take for one that is traced again and again."""
    said = []
    log, handler = logging.getLogger("tensorflow"), logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    log.addHandler(handler)
    try:
        model = zoo.load(model_file)
        for rows in range(8, 20):
            zoo.scan(model, np.zeros((rows, 9, 1), np.uint8))
    finally:
        log.removeHandler(handler)
    assert said == []
