"""What a model's outputs are: logits, or what a softmax or sigmoid inside the model has made of them."""

from typing import Literal

import keras
import numpy as np
from keras import layers

from zoo.graph import Graph, Step, trace

Outputs = Literal["logits", "probabilities", "sigmoid"]

# Layers that hand on or average what they get, so that probabilities stay probabilities.
_CARRIERS = (
    layers.Average,
    layers.AveragePooling2D,
    layers.Dropout,
    layers.Flatten,
    layers.GlobalAveragePooling2D,
    layers.Identity,
    layers.Reshape,
)


def outputs_are(model: keras.Model) -> Outputs:
    """What the first output is: "probabilities" after a softmax, "sigmoid" after a sigmoid, else "logits"."""
    graph = trace(model)
    return _kinds(graph)[graph.outputs[0]]


def to_probabilities(scores: np.ndarray, outputs: Outputs) -> np.ndarray:
    """Outputs of a model as probabilities: a softmax over the last axis of logits; others are theirs already."""
    return softmax(scores) if outputs == "logits" else scores.astype(np.float64)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64: (..., K) -> (..., K)."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def scores_before(model: keras.Model, images: np.ndarray) -> list[np.ndarray]:
    """Every output of `model` on `images`, without the softmax or sigmoid at its end.

    Two models are compared here: a saturated softmax is equal for very different scores, and a sigmoid's small values
    differ by rounding alone.
    """
    graph = trace(model)
    kinds = _kinds(graph)
    ends = _final_activations(graph, kinds)
    if not ends:
        return [keras.ops.convert_to_numpy(scores) for scores in keras.tree.flatten(model(images, training=False))]
    values = {graph.inputs[0]: keras.ops.convert_to_tensor(images, dtype=graph.model.inputs[0].dtype)}
    for index, step in enumerate(graph.steps):
        layer = step.layer
        if index in ends and not getattr(layer, "weights", ()):
            values[step.outputs[0]] = values[step.inputs[0]]
            continue
        if index in ends:
            layer = _without_activation(layer)
        args, kwargs = step.refill(values)
        values |= dict(zip(step.outputs, keras.tree.flatten(layer(*args, **kwargs)), strict=True))
    return [keras.ops.convert_to_numpy(values[key]) for key in graph.outputs]


def _kinds(graph: Graph) -> dict[int, Outputs]:
    """What every tensor of the graph is, by its key."""
    kinds: dict[int, Outputs] = dict.fromkeys(graph.inputs, "logits")
    for step in graph.steps:
        kind = _made_by(step)
        if kind == "logits" and _carries(step):
            sources = {kinds[key] for key in step.inputs}
            kind = sources.pop() if len(sources) == 1 else "logits"
        kinds |= dict.fromkeys(step.outputs, kind)
    return kinds


def _made_by(step: Step) -> Outputs:
    """What a step itself makes of its inputs; layers and operations of keras.ops have the same class names."""
    activation = getattr(step.layer, "activation", None)
    if activation is keras.activations.softmax or type(step.layer).__name__ == "Softmax":
        return "probabilities"
    if activation is keras.activations.sigmoid or type(step.layer).__name__ == "Sigmoid":
        return "sigmoid"
    return "logits"


def _carries(step: Step) -> bool:
    is_linear = isinstance(step.layer, layers.Activation) and step.layer.activation is keras.activations.linear
    return is_linear or isinstance(step.layer, _CARRIERS)


def _final_activations(graph: Graph, kinds: dict[int, Outputs]) -> set[int]:
    """Indices of the steps whose softmax or sigmoid the outputs are."""
    wanted = {key for key in graph.outputs if kinds[key] != "logits"}
    found = set()
    for index, step in reversed(list(enumerate(graph.steps))):
        if not wanted & set(step.outputs):
            continue
        if _made_by(step) == "logits":
            wanted |= set(step.inputs)
        else:
            found.add(index)
    return found


def _without_activation(layer: layers.Layer) -> layers.Layer:
    """The layer without its activation, with weights of its own."""
    plain = type(layer).from_config({**layer.get_config(), "activation": "linear"})
    plain.build_from_config(layer.get_build_config())
    plain.set_weights(layer.get_weights())
    return plain
