"""A model made lighter for inference: normalisation folded into convolutions, what training alone needs left out.

The same function within rounding, of built-in layers alone. `folds` and `folded_weights` say what can be folded and
into which weights, for this copy and for the engines' graphs.
"""

import keras
import numpy as np
from keras import layers, ops

from zoo.card import attach
from zoo.convert.affine import scale_and_shift
from zoo.convert.copy import Copy, made_of
from zoo.network.graph import Graph, Step
from zoo.network.layer_kinds import DEPTHWISE, does_nothing
from zoo.network.network import Network

# The weight of each kind of layer that makes the channels of its output, its last axes being theirs.
_KERNELS = {
    layers.Conv1D: "kernel",
    layers.Conv2D: "kernel",
    layers.Dense: "kernel",
    layers.DepthwiseConv1D: "kernel",
    layers.DepthwiseConv2D: "kernel",
    layers.SeparableConv1D: "pointwise_kernel",
    layers.SeparableConv2D: "pointwise_kernel",
}


def fold(model: keras.Model | Network) -> keras.Model:
    """A copy of a model, with its card, in which normalisations are part of the layers before them.

    A BatchNormalization after a convolution or Dense layer without an activation, which nothing else reads, is
    multiplied into its kernel, in float64. Dropout, noise and the like are left out. A normalisation after anything
    else stays.

    Raises:
        InputError: where the model is none that can be copied (see `zoo.network.graph.trace`).
    """
    network = Network.of(model)
    return attach(_Folding(network).run(network.graph.built_sides), network.card)


class _Folding(Copy):
    """The network with what folds folded."""

    def __init__(self, network: Network):
        super().__init__(network)
        self.into = folds(self.graph)
        self.gone = set(self.into.values())

    def step(self, index: int, step: Step) -> None:
        """Build one step, with the normalisation after it where that folds."""
        if index in self.gone:
            self.tensors[step.outputs[0]] = self.tensors[step.inputs[0]]
        elif does_nothing(step.layer):
            self._leave_out(step)
        elif index in self.into:
            norm = self.graph.steps[self.into[index]].layer
            config = {**step.layer.get_config(), "use_bias": True, "name": self.name(step)}
            copy = made_of(step, type(step.layer), config)
            self.place(copy, lambda: _weights(step.layer, norm), step.layer, norm)
            self.call(step, copy)
        else:
            super().step(index, step)


def folds(graph: Graph) -> dict[int, int]:
    """The steps into whose weights the normalisation after them can go: the one's index, and the other's."""
    found = {}
    for index, step in enumerate(graph.steps):
        if type(step.layer) in _KERNELS:
            following = _only_reader(graph, index)
            while following is not None and does_nothing(graph.steps[following].layer):
                following = _only_reader(graph, following)
            if following is not None and _takes_in(step, graph.steps[following]):
                found[index] = following
    return found


def _only_reader(graph: Graph, index: int) -> int | None:
    """The one step that takes what a step makes, None where there are more, or it is an output."""
    key = graph.steps[index].outputs[0]
    readers = graph.readers.get(key, ())
    return readers[0] if len(readers) == 1 and key not in graph.outputs else None


def _takes_in(step: Step, following: Step) -> bool:
    """Whether the second step is a normalisation of the channels that the first one's kernel makes."""
    layer, norm, rank = step.layer, following.layer, len(step.output_shape)
    if type(norm) is not layers.BatchNormalization:
        return False
    channel = 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1
    return (
        norm.axis % rank == channel
        and layer.activation is keras.activations.linear
        and layer.compute_dtype == norm.compute_dtype
        and layer.compute_dtype in ("float32", "float64")
    )


def folded_weights(layer: layers.Layer, norm: layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a layer that does what `norm` makes of `layer`'s outputs, in float64."""
    scale, bias = scale_and_shift(norm)
    if layer.use_bias:
        bias = bias + ops.convert_to_numpy(layer.bias).astype(np.float64) * scale
    kernel = ops.convert_to_numpy(getattr(layer, _KERNELS[type(layer)])).astype(np.float64)
    return kernel * (scale.reshape(kernel.shape[-2:]) if isinstance(layer, DEPTHWISE) else scale), bias


def _weights(layer: layers.Layer, norm: layers.BatchNormalization) -> list[np.ndarray]:
    """All weights of the folded layer, in Keras's order: a kernel of single channels, the kernel, the bias."""
    first = [ops.convert_to_numpy(layer.depthwise_kernel)] if _KERNELS[type(layer)] == "pointwise_kernel" else []
    return [*first, *folded_weights(layer, norm)]
