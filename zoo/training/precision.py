"""A model's copy for training: mixed precision, and batch normalisation by TensorFlow's fused kernel.

The copy has the model's layers, names and weights; what is learned goes back to the model, which stays one of Keras's
own layers in float32, whatever it was trained in.
"""

import keras
from keras import layers

from zoo import processor
from zoo.network.graph import trace

# What Linux calls the instructions that multiply bfloat16: x86's (AVX-512, AMX) and 64-bit Arm's.
_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}
# NVIDIA's Ampere, the first with bfloat16.
_COMPUTE_CAPABILITY = 8.0


def resolve(precision: str) -> str:
    """The one of "float32" and "bfloat16" to compute in; "auto": bfloat16 where this machine multiplies it fast."""
    if precision != "auto":
        return precision
    return "bfloat16" if _has_bfloat16() else "float32"


def _has_bfloat16() -> bool:
    if keras.backend.backend() == "jax":
        import jax

        device = jax.devices()[0]
        if device.platform == "gpu":
            return float(device.compute_capability) >= _COMPUTE_CAPABILITY
        return device.platform == "tpu"  # XLA on a CPU computes bfloat16 in float32
    return not _INSTRUCTIONS.isdisjoint(processor.flags())


def training_copy(model: keras.Model, precision: str) -> keras.Model:
    """The same function with the same weights, in variables of its own, computing in `precision`.

    In bfloat16 (Keras's mixed_bfloat16: variables stay float32) preprocessing and the outputs' layers stay in float32.
    """
    graph = trace(model)
    last = {id(step.layer) for step in graph.steps if not set(step.outputs).isdisjoint(graph.outputs)}

    def clone(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        exact = isinstance(layer, layers.Rescaling) or id(layer) in last
        if precision == "bfloat16" and not exact:
            config["dtype"] = "mixed_bfloat16"
        return (FusedNormalization if _fusible(layer) else type(layer)).from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone)
    assign(copy, model)
    return copy


def assign(model: keras.Model, source: keras.Model) -> None:
    """Give `model` the weights of `source`, whose layers have the same names.

    Their shapes may differ, as those of a Dense layer and of the convolution that it slides as.
    """
    for layer in source.layers:
        if layer.weights:
            own = model.get_layer(layer.name)
            shapes = [weight.shape for weight in own.weights]
            own.set_weights([value.reshape(shape) for value, shape in zip(layer.get_weights(), shapes, strict=True)])


def _fusible(layer: layers.Layer) -> bool:
    return (
        keras.backend.backend() == "tensorflow"
        and type(layer) is layers.BatchNormalization
        and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3)
        and layer.compute_dtype == "float32"
        and not (layer.renorm or layer.synchronized)
    )


# oneDNN's fast batch normalisation takes multiples of so many channels; of others its plain one takes up to ten times
# as long (`python benchmarks/channels.py`).
MULTIPLES = {"float32": 4, "bfloat16": 16}


class FusedNormalization(layers.BatchNormalization):
    """Keras's batch normalisation of feature maps (B, H, W, C), by TensorFlow's fused kernel.

    The kernel reads bfloat16 and keeps its statistics in float32, where Keras casts the whole map to float32 and back.
    Channels of zeros are added for it where their number would make it slow, and cut off again.
    """

    def call(self, inputs, training=None, mask=None):
        """Normalise by the batch's statistics in training, and follow them; else, or frozen, by the moving averages."""
        import tensorflow as tf

        training = bool(training and self.trainable)
        channels = inputs.shape[-1]
        added = -channels % MULTIPLES[self.compute_dtype]

        def widened(vector):
            return tf.pad(vector, [[0, added]]) if added else vector

        one = tf.ones_like(self.moving_mean)
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=_with_channels(inputs, channels + added),
            scale=widened(self.gamma if self.scale else one),
            offset=widened(self.beta if self.center else one * 0),
            mean=[] if training else widened(self.moving_mean),
            variance=[] if training else widened(self.moving_variance),
            epsilon=self.epsilon,
            is_training=training,
        )
        y, mean, variance = _with_channels(y, channels), mean[:channels], variance[:channels]
        if training:
            # The kernel gives the sample variance, divided by n - 1; Keras's moving average is of the one divided by n.
            n = tf.cast(tf.size(inputs) / inputs.shape[-1], variance.dtype)
            self._follow(self.moving_mean, mean)
            self._follow(self.moving_variance, variance * (n - 1) / n)
        return y

    def _follow(self, average: keras.Variable, value) -> None:
        average.assign(average * self.momentum + value * (1 - self.momentum))


def _with_channels(x, channels: int):
    """A feature map (B, H, W, C) with zeros behind its channels, or with the first ones alone.

    As a matrix, whose padding and cutting are several times as fast as a map's.
    """
    import tensorflow as tf

    before = x.shape[-1]
    if channels == before:
        return x
    rows = tf.reshape(x, (-1, before))
    if channels > before:
        rows = tf.pad(rows, [[0, 0], [0, channels - before]])
    else:
        rows = tf.slice(rows, [0, 0], [-1, channels])
    return tf.reshape(rows, (*(side or tf.shape(x)[axis] for axis, side in enumerate(x.shape[:-1])), channels))
