import keras
import numpy as np
import pytest
from conftest import noise, randomize, some_by_default
from keras import layers

import zoo
from zoo.config import load_config
from zoo.training import precision
from zoo.training.precision import FusedNormalization, resolve, training_copy
from zoo.training.recipe import trainer

tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's kernel")


def pair(kind, dtype="float32", channels=5, **settings):
    """One random normalisation, by Keras or by the kernel; the same weights for both kinds."""
    layer = kind(name="norm", dtype=dtype, momentum=0.7, epsilon=1e-3, **settings)
    layer.build((None, 3, 4, channels))
    generator = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    return layer


def step(layer, x, upstream, training):
    """Outputs, the gradients of inputs and weights, and the weights after one call."""
    import tensorflow as tf

    x = tf.cast(x, layer.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
        loss = tf.reduce_sum(tf.cast(y, "float32") * upstream)
    weights = [weight.value for weight in layer.trainable_weights]
    return [np.asarray(value, np.float32) for value in (y, *tape.gradient(loss, [x, *weights]), *layer.weights)]


@tensorflow_only
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("settings", [{}, {"scale": False}, {"center": False}, {"trainable": False}])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 2**-7)])
@pytest.mark.parametrize("channels", [5, 16, 18])
def test_the_fused_kernel_is_keras_batch_normalisation(dtype, tolerance, settings, training, channels):
    generator = np.random.default_rng(0)
    # Seven values a channel, so that n and n - 1 differ; means far from zero.
    x = generator.normal(2, 3, (7, 1, 1, channels)).astype(np.float32)
    upstream = generator.normal(size=x.shape).astype(np.float32)
    expected = step(pair(layers.BatchNormalization, dtype, channels, **settings), x, upstream, training)
    received = step(pair(FusedNormalization, dtype, channels, **settings), x, upstream, training)
    for given, wanted in zip(received, expected, strict=True):
        assert np.abs(given - wanted).max() <= tolerance * np.abs(wanted).max()
    if dtype != "float32":
        for given, wanted in zip(received[-2:], expected[-2:], strict=True):
            np.testing.assert_allclose(given, wanted, rtol=1e-5)


@tensorflow_only
@pytest.mark.parametrize(
    ("dtype", "channels", "multiple"), [("float32", 18, 20), ("mixed_bfloat16", 18, 32), ("mixed_bfloat16", 32, 32)]
)
def test_the_kernel_is_given_as_many_channels_as_it_is_fast_for(dtype, channels, multiple):
    import tensorflow as tf

    layer = pair(FusedNormalization, dtype, channels)
    spec = tf.TensorSpec((None, None, 4, channels), layer.compute_dtype)
    function = tf.function(lambda x: layer(x, training=True)).get_concrete_function(spec)
    kernels = [each for each in function.graph.get_operations() if each.type == "FusedBatchNormV3"]
    assert [kernel.inputs[0].shape[-1] for kernel in kernels] == [multiple]
    assert function.structured_outputs.shape.as_list() == [None, None, 4, channels]


@tensorflow_only
def test_moving_averages_follow_the_batch_as_worked_out_by_hand():
    layer = FusedNormalization(momentum=0.9)
    layer(np.float32([1, 2, 6]).reshape(3, 1, 1, 1), training=True)
    # mean 3, variance (4 + 1 + 9) / 3
    np.testing.assert_allclose(np.ravel(layer.moving_mean), 0.1 * 3, rtol=1e-6)
    np.testing.assert_allclose(np.ravel(layer.moving_variance), 0.9 + 0.1 * 14 / 3, rtol=1e-6)
    layer(np.float32([5]).reshape(1, 1, 1, 1), training=True)
    np.testing.assert_allclose(np.ravel(layer.moving_variance), 0.9 * (0.9 + 0.1 * 14 / 3), rtol=1e-6)


@pytest.mark.parametrize("name", some_by_default(["nin_cifar10_bn", "resnet29_cifar10", "inception_cifar10"]))
def test_a_training_copy_is_the_same_function_with_variables_of_its_own(name):
    model = randomize(zoo.build(name))
    copy = training_copy(model, "float32")
    assert not {id(weight) for weight in copy.weights} & {id(weight) for weight in model.weights}
    images = noise(2, 32, 32, 3)
    wanted, given = (np.asarray(each(images)) for each in (model, copy))
    assert np.abs(given - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_shared_layers_and_nested_models_are_copied_too():
    """As an architecture of a user's own may have them."""
    inner_input = keras.Input((8, 8, 4))
    inner = keras.Model(inner_input, layers.BatchNormalization()(layers.Conv2D(6, 3)(inner_input)), name="inner")
    inputs = keras.Input((8, 8, 4))
    conv, norm = layers.Conv2D(4, 1, name="shared_conv"), layers.BatchNormalization(name="shared_norm")
    x = norm(conv(norm(conv(inputs))))
    model = randomize(keras.Model(inputs, layers.GlobalAveragePooling2D()(inner(x))))
    copy = training_copy(model, "float32")
    images = noise(2, 8, 8, 4)
    wanted, given = (np.asarray(each(images)) for each in (model, copy))
    assert np.abs(given - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert sum(layer.name.startswith("shared") for layer in copy.layers) == 2
    low = training_copy(model, "bfloat16")
    assert low.get_layer("shared_conv").compute_dtype == "bfloat16"


def test_in_bfloat16_preprocessing_outputs_and_variables_stay_in_float32():
    model = zoo.build("inception_cifar10", auxiliary=["3b"])
    copy = training_copy(model, "bfloat16")
    exact = {layer.name for layer in copy.layers if layer.compute_dtype == "float32"}
    assert exact == {"image", "preprocess", "head_logits", "aux1_logits"}
    assert {weight.dtype for weight in copy.variables if "seed" not in weight.path} == {"float32"}
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


@tensorflow_only
def test_every_normalisation_of_a_training_copy_is_fused():
    copy = training_copy(zoo.build("resnet29_cifar10"), "bfloat16")
    kinds = {type(layer) for layer in copy.layers if isinstance(layer, layers.BatchNormalization)}
    assert kinds == {FusedNormalization}


@tensorflow_only
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.BatchNormalization(axis=1), (4, 6, 5)),
        (layers.BatchNormalization(dtype="float64"), (4, 6, 5)),
        (layers.BatchNormalization(), (5,)),
    ],
)
def test_a_normalisation_that_the_kernel_cannot_compute_stays_keras_own(layer, shape):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layers.Activation("linear")(layer(inputs)))
    assert type(training_copy(model, "bfloat16").layers[1]) is layers.BatchNormalization


@pytest.mark.extended
@tensorflow_only
def test_ten_steps_of_the_fused_net_are_keras_steps():
    config = load_config("nin_digits", ["train.warmup=0", "train.augment.shift=0"])
    labels = np.eye(10, dtype=np.float32)[np.arange(16) % 10]
    results = []
    for fused in (False, True):
        keras.utils.set_random_seed(0)
        model = zoo.build("nin_digits", mlpconvs=[{"kernel": 3, "filters": [8, 8]}], normalization="batch")
        learner = trainer(training_copy(model, "float32") if fused else model, config.train, (0.0,), 100)
        for index in range(10):
            loss = learner.train_on_batch(noise(16, 8, 8, 1, seed=index), labels)[0]
        results.append([loss, *(np.asarray(weight) for weight in learner.weights)])
    for wanted, given in zip(*results, strict=True):
        np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("processor : 0\nflags : fpu avx512f avx512_bf16 sse\n", "bfloat16"),
        ("flags\t\t: fpu amx_bf16\n", "bfloat16"),
        ("Features : fp asimd bf16 i8mm\n", "bfloat16"),
        ("flags : fpu avx512f avx2\n", "float32"),
        ("Features : fp asimd svebf16x\n", "float32"),
    ],
)
def test_auto_takes_bfloat16_where_the_processor_has_it(monkeypatch, text, wanted):
    monkeypatch.setattr(precision.processor.Path, "read_text", lambda self, encoding: text)
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    assert resolve("auto") == wanted
    assert [resolve(each) for each in ("float32", "bfloat16")] == ["float32", "bfloat16"]


def test_auto_is_float32_where_no_processor_is_told(monkeypatch):
    def nothing(self, encoding):
        raise FileNotFoundError

    monkeypatch.setattr(precision.processor.Path, "read_text", nothing)
    assert resolve("auto") == "float32"
