"""What runs a fully-convolutional model: Keras with its graph made lighter, or OpenVINO.

The Keras engine computes what the model computes, within rounding, in another order: a BatchNormalization after a
convolution is multiplied into its kernel, and a convolution with more weights than the processor's caches hold (a
former Dense layer) runs as matrix products, one for each row of its kernel and some of its filters. TensorFlow is given
the other weights as constants, which it lays out for the processor once, and not at every call. OpenVINO is given the
same lighter graph, by TensorFlow.
"""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from zoo.convert.affine import scale_and_shift
from zoo.errors import InputError, unknown
from zoo.network.graph import Graph, Step, run_steps
from zoo.network.network import Network

Engine = Literal["keras", "openvino"]
Precision = Literal["float32", "bfloat16"]
Run = Callable[[np.ndarray], np.ndarray]

ENGINES = ("keras", "openvino")
# Names of the precisions, ours and OpenVINO's.
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
# Bytes of weights that no cache holds: a convolution of few positions spends its time on reading and reordering them.
_LARGE_KERNEL = 16 * 2**20
# Filters of such a convolution in one matrix product: 512 were read twice as fast as 4,096 (VGG-16, two cores).
_FILTERS = 512
# Bytes of constants in a TensorFlow graph, which may have 2 GiB in all.
_MOST_CONSTANTS = 2**30


def make_engine(fcn: keras.Model, name: Engine = "keras", precision: Precision | None = None) -> Run:
    """A function that gives the scores of a batch of images: (B, h, w, C) -> (B, rows, cols, K), as NumPy arrays.

    The weights are read once, here: an engine does not see a later training.

    Args:
        fcn: a model with one image input and one output; a classifier gives (B, K).
        name: "keras" runs on Keras's backend; "openvino" needs the extra of that name.
        precision: what OpenVINO computes in, "float32" (the default) or, on a processor that has it, "bfloat16", which
            keeps 8 bits of every number. Keras computes in what the model's layers say.

    Raises:
        InputError: for an unknown name or precision, a missing package, or a precision that the processor, the engine
            or the model does not have.
    """
    if name not in ENGINES:
        raise InputError(unknown("engine", name, ENGINES))
    network = Network.of(fcn)
    network.check_one_image()
    network.check_one_output()
    graph = network.graph
    if name == "openvino":
        return _openvino(graph, precision or "float32")
    if precision is not None:
        raise InputError(f"precision: received {precision!r}; accepted for the engine 'keras': none, it is the model's")
    return _keras(graph)


# From the smallest range to the largest.
_RANGES = ("float16", "bfloat16", "float32", "float64")


def check_scores(
    scores: np.ndarray, what: str, model: keras.Model, engine: Engine = "keras", precision: Precision | None = None
) -> np.ndarray:
    """The scores, if all of them are finite.

    Raises:
        InputError: beginning with `what`, and naming the precision that they were computed in, where some are not.
    """
    if np.isfinite(scores).all():
        return scores
    used = Network.of(model).compute_dtypes
    computed = (precision or "float32") if engine == "openvino" else next(filter(used.__contains__, _RANGES), "float32")
    raise InputError(
        f"{what}: received scores that are not finite, computed in {computed} by the engine {engine!r}; accepted: "
        f"finite ones{'' if computed in ('float32', 'float64') else ', as of the same model in float32'}"
    )


def _keras(graph: Graph) -> Run:
    """The lighter graph, compiled by the backend once for all sizes (TensorFlow) or once for each (JAX)."""
    run = _LighterGraph(graph)
    dtype, shape = graph.model.inputs[0].dtype, graph.model.inputs[0].shape
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        fixed = _constants(run.variables)
        values = [ops.convert_to_numpy(variable) for variable in fixed]

        @tf.function(input_signature=[tf.TensorSpec(shape, dtype)])
        def compiled(images: Any) -> Any:
            return _with_values(run, fixed, [tf.constant(value) for value in values], images)

        return lambda images: compiled(np.asarray(images, dtype)).numpy()
    if backend == "jax":
        import jax

        stateless = jax.jit(lambda values, images: _with_values(run, run.variables, values, images))
        return lambda images: np.asarray(
            stateless([variable.value for variable in run.variables], np.asarray(images, dtype))
        )
    import torch

    def without_gradients(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return ops.convert_to_numpy(run(ops.convert_to_tensor(np.asarray(images, dtype))))

    return without_gradients


def _constants(variables: list[keras.Variable]) -> list[keras.Variable]:
    """Those of the variables that a graph holds as constants: all but the largest, up to the most it may hold."""
    sizes = [np.prod(variable.shape) * np.dtype("float32").itemsize for variable in variables]
    totals = np.cumsum([size if size <= _LARGE_KERNEL else 0 for size in sizes])
    return [
        variable
        for variable, size, total in zip(variables, sizes, totals, strict=True)
        if size <= _LARGE_KERNEL and total <= _MOST_CONSTANTS
    ]


def _with_values(run: Callable, variables: Sequence[keras.Variable], values: Sequence[Any], images: Any) -> Any:
    with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
        return run(images)


class _LighterGraph:
    """The graph's steps, some of them replaced by cheaper ones; called with a batch, it gives the first output.

    `variables`: what it reads, the model's weights or what replaces them.
    """

    def __init__(self, graph: Graph, by_rows: bool = True):
        """Replace what can be; `by_rows`: large kernels too."""
        self.graph = graph
        self.variables: list[keras.Variable] = list(graph.model.variables)
        self.applied: list[Callable | None] = [step.layer for step in graph.steps]
        readers: dict[int, list[int]] = {}
        for index, step in enumerate(graph.steps):
            for key in step.inputs:
                readers.setdefault(key, []).append(index)
        for index, step in enumerate(graph.steps):
            if type(step.layer) is not layers.Conv2D:
                continue
            following = readers.get(step.outputs[0], [])
            alone = len(following) == 1 and step.outputs[0] not in graph.outputs
            if alone and _folds(step, graph.steps[following[0]]):
                self.applied[index] = self._folded(step.layer, graph.steps[following[0]].layer)
                self.applied[following[0]] = None
            elif by_rows and _is_large(step.layer):
                self.applied[index] = self._by_rows(step.layer)

    def __call__(self, images: Any) -> Any:
        (output,) = self.graph.outputs
        return run_steps(self.graph, {self.graph.inputs[0]: images}, [output], self.applied)[output]

    def _replace(self, old: list[keras.Variable], new: list[keras.Variable]) -> None:
        # A layer that is shared, and stays as it is elsewhere, reads its own.
        gone = {id(variable) for variable in old}
        self.variables = [variable for variable in self.variables if id(variable) not in gone] + new

    def _folded(self, layer: layers.Conv2D, norm: layers.BatchNormalization) -> Callable:
        """A convolution and the normalisation after it as one convolution with other weights."""
        kernel, bias = folded_weights(layer, norm)
        kernel, bias = (keras.Variable(value, dtype=layer.compute_dtype, trainable=False) for value in (kernel, bias))
        self._replace([*layer.variables, *norm.variables], [kernel, bias])
        return lambda x: _convolve(x, layer, kernel) + ops.convert_to_tensor(bias)

    def _by_rows(self, layer: layers.Conv2D) -> Callable:
        """A convolution as matrix products, each of a row of its kernel, with the columns it sees side by side."""
        rows, columns, channels, filters = layer.kernel.shape
        kernel = ops.convert_to_numpy(layer.kernel).reshape(rows, columns * channels, filters)
        parts = [
            keras.Variable(kernel[..., first : first + _FILTERS], dtype=layer.compute_dtype, trainable=False)
            for first in range(0, filters, _FILTERS)
        ]
        self._replace([layer.kernel], parts)

        def call(x: Any) -> Any:
            x = ops.cast(x, layer.compute_dtype)
            batch, height, width, _ = ops.shape(x)
            shifted = [x[:, :, left : left - columns + 1 or None] for left in range(columns)]
            side_by_side = ops.concatenate(shifted, axis=-1)
            totals = [0] * len(parts)
            for top in range(rows):
                seen = ops.reshape(side_by_side[:, top : top - rows + 1 or None], (-1, columns * channels))
                totals = [total + ops.matmul(seen, part[top]) for total, part in zip(totals, parts, strict=True)]
            total = ops.reshape(
                ops.concatenate(totals, axis=-1), (batch, height - rows + 1, width - columns + 1, filters)
            )
            if layer.use_bias:
                total = total + ops.cast(layer.bias, layer.compute_dtype)
            return layer.activation(total)

        return call


def folded_weights(layer: layers.Conv2D, norm: layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a convolution that does what `norm` makes of `layer`'s outputs, in float64."""
    scale, bias = scale_and_shift(norm)
    if layer.use_bias:
        bias = bias + ops.convert_to_numpy(layer.bias).astype(np.float64) * scale
    return ops.convert_to_numpy(layer.kernel).astype(np.float64) * scale, bias


def _folds(step: Step, following: Step) -> bool:
    """Whether the second step is a normalisation of the channels that the first one's kernel can take in."""
    layer, norm = step.layer, following.layer
    return (
        type(norm) is layers.BatchNormalization
        and norm.axis in (-1, len(following.output_shape) - 1)
        and layer.activation is keras.activations.linear
        and layer.compute_dtype == norm.compute_dtype
        and layer.compute_dtype in ("float32", "float64")
    )


def _is_large(layer: layers.Conv2D) -> bool:
    """Whether a convolution's weights outweigh its arithmetic, and its windows are plain ones."""
    plain = layer.padding == "valid" or set(layer.kernel_size) == {1}
    ones = {*layer.strides, *layer.dilation_rate, layer.groups} == {1}
    size = np.prod(layer.kernel.shape) * np.dtype(keras.backend.standardize_dtype(layer.variable_dtype)).itemsize
    return plain and ones and size > _LARGE_KERNEL


def _convolve(x: Any, layer: layers.Conv2D, kernel: Any) -> Any:
    x = ops.cast(x, layer.compute_dtype)
    return ops.conv(
        x, ops.convert_to_tensor(kernel), layer.strides, layer.padding, "channels_last", layer.dilation_rate
    )


def _openvino(graph: Graph, precision: Precision) -> Run:
    """The model compiled by OpenVINO for the CPU, once for all sizes."""
    model = graph.model
    if precision not in _PRECISIONS:
        raise InputError(unknown("precision", precision, _PRECISIONS))
    if importlib.util.find_spec("openvino") is None:
        raise InputError("engine 'openvino': needs openvino; pip install 'bottleneck-zoo[openvino]'")
    if (backend := keras.backend.backend()) != "tensorflow":
        raise InputError(
            f"engine 'openvino': received {backend} as Keras's backend; accepted: KERAS_BACKEND=tensorflow"
        )
    computed = {step.layer.compute_dtype for step in graph.steps if getattr(step.layer, "weights", ())}
    if computed - {"float32"}:
        received = ", ".join(sorted(computed))
        raise InputError(f"model {model.name!r}: computes in {received}; accepted by the engine 'openvino': float32")
    import openvino
    import tensorflow as tf

    core = openvino.Core()
    if precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise InputError("precision: received 'bfloat16', which this processor does not have; accepted: 'float32'")
    # Always given: OpenVINO's own default is the lowest precision that the processor has.
    options = {"INFERENCE_PRECISION_HINT": _PRECISIONS[precision]}
    # In bfloat16 OpenVINO's own convolution reads a large kernel as fast.
    run = tf.function(_LighterGraph(graph, by_rows=precision == "float32"))
    traced = run.get_concrete_function(tf.TensorSpec(model.inputs[0].shape, "float32"))
    compiled = core.compile_model(openvino.convert_model(traced), "CPU", options)
    return lambda images: compiled(np.asarray(images, np.float32))[0]
