"""What a model's outputs are: logits, or what a softmax or sigmoid inside the model has made of them."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from zoo.network.graph import Graph, Step, run_steps
from zoo.scores import Outputs

# Layers that hand on or average what they get, so that probabilities stay probabilities.
_CARRIERS = (
    layers.Average,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.Dropout,
    layers.Flatten,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.Identity,
    layers.Reshape,
)


def scores_before(graph: Graph, images: np.ndarray) -> list[np.ndarray]:
    """Every output of a model on `images`, (B, ...) arrays, without the softmax or sigmoid at its end.

    Two models are compared here: a saturated softmax is equal for very different scores, and a sigmoid's small values
    differ by rounding alone.
    """
    return [keras.ops.convert_to_numpy(scores) for scores in before_activation(graph)(as_taken(graph, images))]


def as_taken(graph: Graph, images: np.ndarray) -> Any:
    """Images as the model's input takes them: of its dtype, to which Keras casts them."""
    return keras.ops.convert_to_tensor(images, dtype=graph.model.inputs[0].dtype)


def before_activation(graph: Graph) -> Callable[[Any], list[Any]]:
    """What `scores_before` computes, as a function from images to outputs, tensors of the backend.

    It makes no variables when it is called, so that it can be traced and differentiated.
    """
    applied = without_activations(graph)

    def compute(images: Any) -> list[Any]:
        values = run_steps(graph, {graph.inputs[0]: images}, graph.outputs, applied)
        return [values[key] for key in graph.outputs]

    return compute


def without_activations(graph: Graph) -> list[keras.Operation | None]:
    """The graph's layers; in place of the softmax or sigmoid that an output is, the layer without, or None."""
    applied = [step.layer for step in graph.steps]
    kinds = _kinds(graph)
    wanted = {key for key in graph.outputs if kinds[key] != "logits"}
    for index, step in reversed(list(enumerate(graph.steps))):
        if not wanted & set(step.outputs):
            continue
        if _made_by(step) == "logits":
            wanted |= set(step.inputs)
        else:
            applied[index] = _without_activation(step.layer) if getattr(step.layer, "weights", ()) else None
    return applied


def kinds_of_outputs(graph: Graph) -> tuple[Outputs, ...]:
    """What each output of a graph is: "probabilities" after a softmax, "sigmoid" after a sigmoid, else "logits"."""
    kinds = _kinds(graph)
    return tuple(kinds[key] for key in graph.outputs)


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


def _without_activation(layer: layers.Layer) -> layers.Layer:
    """The layer without its activation, with weights of its own."""
    plain = type(layer).from_config({**layer.get_config(), "activation": "linear"})
    plain.build_from_config(layer.get_build_config())
    plain.set_weights(layer.get_weights())
    return plain
