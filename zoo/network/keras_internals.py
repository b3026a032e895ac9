"""What is read of Keras beyond its public interface, in this one place; tests/test_keras_internals.py is the canary.

Keras keeps a Functional model's graph as nodes, each of which is one call of one layer or operation: `node.operation`,
the call's arguments, and its input and output tensors.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import keras


def graph_holder(model: keras.Model) -> keras.Model | None:
    """The Functional model whose nodes are the model's graph; None for a subclassed model, or one that is not built."""
    inner = getattr(model, "_functional", None) if isinstance(model, keras.Sequential) else model
    return inner if hasattr(inner, "_nodes_by_depth") else None


def outputs_of(model: keras.Model) -> Any:
    """The outputs of a model in its author's form: one tensor, a list, or a dict.

    A Sequential that was never called has none of its own, but its inner model has.
    """
    return (graph_holder(model) or model).output


def output_names(model: keras.Model) -> list[str]:
    """The names of a model's outputs: the keys of a dict, else the names of the layers that make them."""
    given = outputs_of(model)
    return sorted(given) if isinstance(given, dict) else list((graph_holder(model) or model).output_names)


def nodes_in_order(model: keras.Model) -> Iterator[Any]:
    """The calls of a Functional model, each after those whose tensors it takes; inputs are none."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from (node for node in model._nodes_by_depth[depth] if not node.is_input)


def arguments(node: Any) -> tuple[tuple, dict[str, Any]]:
    """The positional and keyword arguments of a call, with its symbolic tensors."""
    return node.arguments.args, node.arguments.kwargs


def filled(node: Any, values: list[Any]) -> tuple[tuple, dict[str, Any]]:
    """The arguments of a call with `values` in place of its tensors, in the order of `node.input_tensors`."""
    return node.arguments.fill_in({id(tensor): value for tensor, value in zip(node.input_tensors, values, strict=True)})


def cast_node(tensor: keras.KerasTensor, dtype: str) -> Any:
    """A call of keras.ops.cast on a tensor like the given one, which itself stays in its own graph as it is."""
    made = keras.ops.cast(keras.KerasTensor(tensor.shape, tensor.dtype), dtype)
    return made._keras_history.operation._inbound_nodes[-1]


def takes_dict(model: keras.Model) -> bool:
    """Whether a model was made with a dict of inputs, which its calls give by the same keys."""
    return isinstance(model._inputs_struct, dict)


def adds_bias_along_columns(layer: keras.Operation, shape: Sequence[int | None]) -> bool:
    """Whether Keras adds a convolution's bias along its last axis, columns, since there are as many as filters.

    Its function `add` on TensorFlow takes what fits the last axis for the bias of maps with channels last.
    """
    is_first = getattr(layer, "data_format", None) == "channels_first" and getattr(layer, "use_bias", False)
    return bool(is_first) and keras.backend.backend() == "tensorflow" and shape[-1] == shape[1] != 1


def is_from_keras(what: Any) -> bool:
    """Whether a class or function is Keras's own."""
    return str(getattr(what, "__module__", "")).startswith("keras.")


def is_scale_of_applications(kind: type) -> bool:
    """Whether a layer is one that keras.applications defines for ConvNeXt, or Inception-ResNet: x * s, x + s * y."""
    named = kind.__name__ in ("LayerScale", "CustomScaleLayer")
    return named and kind.__module__.startswith("keras.src.applications.")
