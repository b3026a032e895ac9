"""The layer whose kernel makes a model's scores, and what can be folded into it: a factor, and an offset."""

import math
from collections.abc import Callable, Iterator

import keras
import numpy as np
from keras import layers

from zoo.errors import InputError, refuse
from zoo.network.graph import Graph, Step
from zoo.network.network import Network
from zoo.network.rules import global_pooling

_WITH_KERNEL = (layers.Dense, layers.Conv1D, layers.Conv2D)
# Layers that give c times as much of c times as much, for any c > 0.
_HOMOGENEOUS = (
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.Dropout,
    layers.Flatten,
    layers.Identity,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.Permute,
    layers.Reshape,
)
# Those of them that may bring the classes of several positions together.
_GATHERING = (layers.Flatten, layers.Permute, layers.Reshape)


def fold_affine(
    model: keras.Model | Network, factor: float | np.ndarray, offset: float | np.ndarray = 0.0
) -> keras.Model:
    """Make the first output y of a model factor * y + offset: exactly, in the kernel and bias that make it.

    The model is changed in place, and returned. Its other outputs stay as they are.

    Args:
        model: the model.
        factor: above 0, one or one for each class (K,).
        offset: one or one for each class (K,).

    Raises:
        InputError: where the output does not come from a Dense or convolutional layer, whose result the two can follow
            to the output and nothing else.
    """
    network = Network.of(model)
    is_plain = np.ndim(factor) == 0 and not np.any(offset)
    layer = last_layer(network) if is_plain else linear_layer(network)
    for weight, added in ((layer.kernel, 0.0), (layer.bias, offset)):
        if weight is not None:
            weight.assign(keras.ops.convert_to_numpy(weight).astype(np.float64) * factor + added)
    return network.model


def last_layer(network: Network) -> keras.Layer:
    """The layer whose kernel and bias make the first output, and into which a factor above 0 can go.

    Raises:
        InputError: where there is none.
    """
    return _found(network, "a factor", _is_homogeneous, _passes_factor)


def linear_layer(network: Network) -> keras.Layer:
    """The layer whose kernel and bias make the first output, into which a factor and an offset a class can go.

    Raises:
        InputError: where there is none.
    """
    layer = _found(network, "an offset", _is_linear, _passes_offset)
    if layer.bias is None or layer.kernel.shape[-1] != network.units():
        refuse(f"layer {layer.name!r}", "no bias, or not one number for each class", "a last layer with both")
    return layer


def _found(
    network: Network,
    what: str,
    activation: Callable[[Callable], bool],
    passes: Callable[[Network, Step], bool],
) -> keras.Layer:
    """The last layer with a kernel, if its activation and the steps after it let through what goes into it."""
    graph = network.graph
    calls = [id(step.layer) for step in graph.steps]
    for step in _back_from(graph, graph.outputs[0]):
        key = step.outputs[0]
        if len(graph.readers.get(key, ())) + graph.outputs.count(key) > 1 or calls.count(id(step.layer)) > 1:
            received = "weights or results that serve more than the model's first output"
            refuse(f"layer {step.path!r}", received, f"a last layer of the scores' own, into which {what} can go")
        if isinstance(step.layer, _WITH_KERNEL) and activation(step.layer.activation):
            return step.layer
        if not passes(network, step):
            break
    raise InputError(
        f"model {network.name!r}: no Dense or convolutional layer makes its scores; {what} cannot be folded in"
    )


def _back_from(graph: Graph, key: int) -> Iterator[Step]:
    """The step that makes a tensor, the one that makes its only input, and so on."""
    makers = {made: step for step in graph.steps for made in step.outputs}
    while key in makers:
        yield makers[key]
        if len(makers[key].inputs) != 1:
            return
        (key,) = makers[key].inputs


def _passes_factor(network: Network, step: Step) -> bool:
    """Whether a factor above 0 may come before a step as well as after it."""
    layer = step.layer
    if isinstance(layer, layers.ReLU):
        return layer.max_value is None and not layer.threshold
    if isinstance(layer, layers.Activation):
        return _is_homogeneous(layer.activation)
    return isinstance(layer, _HOMOGENEOUS) or global_pooling(step, network.axes) is not None


def _passes_offset(network: Network, step: Step) -> bool:
    """Whether a number for each class may be added before a step as well as after it."""
    layer = step.layer
    if isinstance(layer, layers.Activation):
        return _is_linear(layer.activation)
    if isinstance(layer, _GATHERING):
        sides = [side for side in step.shapes[0][1:] if side is not None]
        return len(sides) == len(step.shapes[0]) - 1 and math.prod(sides) == network.units()
    return not isinstance(layer, layers.ReLU) and _passes_factor(network, step)


def _is_homogeneous(activation: Callable) -> bool:
    return activation in (keras.activations.linear, keras.activations.relu)


def _is_linear(activation: Callable) -> bool:
    return activation is keras.activations.linear
