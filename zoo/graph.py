"""A Keras model as a plain list of steps in order of execution, nested models laid open.

Describing, tracing geometry and converting all walk this list, so that they agree on what a model does.
"""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import keras

from zoo.errors import InputError


@dataclass(frozen=True)
class Step:
    """One call of one layer.

    `path` is the layer's name, after those of the models around it. `inputs` and `outputs` are keys of tensors, equal
    where the tensor is the same. `refill(values)` gives the call's arguments with values in place of its tensors.
    """

    layer: keras.Operation
    path: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    node: Any

    @property
    def shapes(self) -> tuple[tuple[int | None, ...], ...]:
        """The shapes of the inputs, as the model was built."""
        return tuple(tuple(tensor.shape) for tensor in self.node.input_tensors)

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """The shape of the first output, as the model was built."""
        return tuple(self.node.outputs[0].shape)

    def refill(self, values: dict[int, Any]) -> tuple[tuple, dict]:
        """The call's positional and keyword arguments, each tensor replaced by `values[its key]`."""
        tensors = zip(self.node.input_tensors, self.inputs, strict=True)
        return self.node.arguments.fill_in({id(tensor): values[key] for tensor, key in tensors})


@dataclass(frozen=True)
class Graph:
    """The steps of a model, and the keys of its input and output tensors."""

    model: keras.Model
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]


def functional(model: keras.Model) -> keras.Model:
    """The functional form of a Functional or Sequential model.

    Raises:
        InputError: for a subclassed model, whose graph Keras does not keep, a Sequential one that is not built, or what
            is no model.
    """
    if not isinstance(model, keras.Model):
        raise InputError(f"model: accepted: a Keras model, received {type(model).__name__}")
    if isinstance(model, keras.Sequential):
        if not model.built or getattr(model, "_functional", None) is None:
            raise InputError(f"model {model.name!r}: not built; give it an Input, or call it once")
        return model._functional
    if not hasattr(model, "_nodes_by_depth"):
        raise InputError(f"model {model.name!r}: accepted: Functional or Sequential, received {type(model).__name__}")
    return model


def trace(model: keras.Model) -> Graph:
    """List the steps of `model` in order of execution.

    Raises:
        InputError: where Keras keeps no graph of the model, or of one inside it.
    """
    inner = functional(model)
    fresh = count()
    keys = {id(tensor): next(fresh) for tensor in inner.inputs}
    inputs = tuple(keys.values())
    steps = list(_walk(inner, keys, "", fresh))
    outputs = tuple(keys[id(tensor)] for tensor in inner.outputs)
    return Graph(model, inputs, outputs, _needed(steps, outputs))


def _walk(model: keras.Model, keys: dict[int, int], prefix: str, fresh: Iterator[int]) -> Iterator[Step]:
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input or any(id(tensor) not in keys for tensor in node.input_tensors):
                continue
            layer = node.operation
            sources = tuple(keys[id(tensor)] for tensor in node.input_tensors)
            if isinstance(layer, keras.Model):
                # A shared model's inner tensors are the same objects at every call; each call has keys of its own.
                inner = functional(layer)
                inside = {id(tensor): key for tensor, key in zip(inner.inputs, sources, strict=True)}
                yield from _walk(inner, inside, f"{prefix}{layer.name}/", fresh)
                keys |= {
                    id(outer): inside[id(result)] for outer, result in zip(node.outputs, inner.outputs, strict=True)
                }
                continue
            keys |= {id(tensor): next(fresh) for tensor in node.outputs}
            results = tuple(keys[id(tensor)] for tensor in node.outputs)
            yield Step(layer, f"{prefix}{layer.name}", sources, results, node)


def _needed(steps: list[Step], outputs: tuple[int, ...]) -> tuple[Step, ...]:
    """The steps that the outputs depend on."""
    needed = set(outputs)
    kept = []
    for step in reversed(steps):
        if needed & set(step.outputs):
            needed |= set(step.inputs)
            kept.append(step)
    return tuple(reversed(kept))


def check_one_image(graph: Graph, axes: int = 2) -> None:
    """See that the model takes one image with `axes` spatial axes.

    Raises:
        InputError: for several inputs, a vector, or another number of axes.
    """
    shapes = [tuple(tensor.shape[1:]) for tensor in graph.model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != axes + 1:
        form = "(height, width, channels)" if axes == 2 else f"{axes} axes and channels"
        received = " and ".join(str(shape) for shape in shapes)
        raise InputError(f"model {graph.model.name!r}: takes {received}; accepted: one image, {form}")


def check_one_output(model: keras.Model) -> None:
    """See that the model has one output.

    Raises:
        InputError: where it has several.
    """
    if len(model.outputs) != 1:
        raise InputError(f"model {model.name!r}: has {len(model.outputs)} outputs; accepted: one, a vector of classes")


def check_size(size: Any, axes: int) -> tuple[int, ...]:
    """An `image_size` as whole numbers, one for each of `axes` axes.

    Raises:
        InputError: for anything but `axes` whole numbers above 0.
    """
    try:
        sides = tuple(operator.index(side) for side in size)
    except TypeError:
        sides = ()
    if len(sides) != axes or min(sides, default=0) < 1:
        raise InputError(f"image_size: received {size}; accepted: {axes} numbers above 0")
    return sides


def image_axes(graph: Graph) -> slice:
    """Where height and width are in the shape of the image."""
    first = any(getattr(step.layer, "data_format", None) == "channels_first" for step in graph.steps)
    return slice(2, None) if first else slice(1, -1)


def shapes_at(graph: Graph, size: tuple[int, ...] | None) -> dict[int, tuple[int | None, ...]]:
    """The shape of every tensor without the batch, for an image of `size`; None where that leaves it open.

    Raises:
        InputError: naming the first layer that does not take that size.
    """
    sources = graph.model.inputs
    shapes = {key: tuple(tensor.shape[1:]) for key, tensor in zip(graph.inputs, sources, strict=True)}
    for step in graph.steps:
        shapes |= {key: tuple(made.shape[1:]) for key, made in zip(step.outputs, step.node.outputs, strict=True)}
    axes = image_axes(graph)
    if size is None or (tuple(sources[0].shape[axes]) == size and not any(None in shape for shape in shapes.values())):
        return shapes
    probe = [1, *sources[0].shape[1:]]
    probe[axes] = size
    values = {graph.inputs[0]: keras.KerasTensor(probe, dtype=sources[0].dtype)}
    values |= dict(zip(graph.inputs[1:], sources[1:], strict=True))
    for step in graph.steps:
        args, kwargs = step.refill(values)
        try:
            made = keras.tree.flatten(step.layer.compute_output_spec(*args, **kwargs))
        except (ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"image_size: received {size}; layer {step.path!r} does not take it: {reason}") from None
        if any(side is not None and side < 1 for tensor in made for side in tensor.shape):
            raise InputError(f"image_size: received {size}; nothing is left of it at layer {step.path!r}")
        values |= dict(zip(step.outputs, made, strict=True))
    return {key: tuple(tensor.shape[1:]) for key, tensor in values.items()}
