"""A Keras model as a plain list of steps in order of execution, nested models laid open.

Describing, tracing geometry and converting all walk this list, so that they agree on what a model does.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import Any

import keras

from zoo.errors import InputError, cause, quoted, refuse
from zoo.network.keras_internals import (
    arguments,
    cast_node,
    filled,
    graph_holder,
    is_from_keras,
    nodes_in_order,
    takes_dict,
)
from zoo.network.layer_kinds import OF_ANY_LAYOUT, as_global_pooling
from zoo.network.program import last_uses

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Step:
    """One call of one layer.

    `layer` is the model's own, or the global pooling that it is (see `as_global_pooling`). `path` is the layer's name,
    after those of the models around it. `inputs` and `outputs` are keys of tensors, equal where the tensor is the same.
    `training`: whether it, or a model around it, is called with training=True.
    """

    layer: keras.Operation
    path: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    node: Any
    training: bool = False

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes of the inputs, as the model was built."""
        return tuple(tuple(tensor.shape) for tensor in self.node.input_tensors)

    @property
    def made(self) -> tuple[keras.KerasTensor, ...]:
        """The outputs as the model was built, which have a shape and a dtype."""
        return tuple(self.node.outputs)

    @property
    def output_shape(self) -> Shape:
        """The shape of the first output, as the model was built."""
        return tuple(self.made[0].shape)

    @property
    def arguments(self) -> tuple[tuple, dict[str, Any]]:
        """The call's positional and keyword arguments, with its symbolic tensors."""
        return arguments(self.node)

    def refill(self, values: dict[int, Any]) -> tuple[tuple, dict]:
        """The call's arguments, for inference, each tensor replaced by `values[its key]`."""
        args, kwargs = filled(self.node, [values[key] for key in self.inputs])
        # Augmentation layers are called with training=True, which Keras overrides where it predicts.
        return args, {**kwargs, "training": False} if kwargs.get("training") else kwargs


@dataclass(frozen=True)
class Axes:
    """Where maps (B, H, W, C), or (B, C, H, W), have their axes; `count` spatial ones."""

    count: int
    channels_first: bool = False

    @property
    def rank(self) -> int:
        """The number of axes of a map, with batch and channels."""
        return self.count + 2

    @property
    def channel(self) -> int:
        """The axis of the channels."""
        return 1 if self.channels_first else self.count + 1

    @property
    def spatial(self) -> slice:
        """The spatial axes."""
        return slice(2, None) if self.channels_first else slice(1, -1)

    def sides(self, shape: Shape) -> Shape:
        """The spatial part of a map's shape with its batch."""
        return tuple(shape[self.spatial])

    def shape(self, sides: Shape, channels: int | None) -> Shape:
        """The shape of a map without its batch."""
        return (channels, *sides) if self.channels_first else (*sides, channels)

    def at(self, *parts: slice) -> tuple[slice, ...]:
        """The index that takes a part along every spatial axis of a batch of maps."""
        whole = slice(None)
        return (whole, whole, *parts) if self.channels_first else (whole, *parts, whole)

    def last(self, values: Any) -> Any:
        """Maps with their channels as the last axis: (B, H, W, C)."""
        return values.transpose(0, *range(2, self.rank), 1) if self.channels_first else values

    def own(self, values: Any) -> Any:
        """Maps (B, H, W, C) with their channels where these axes have them."""
        return values.transpose(0, self.rank - 1, *range(1, self.rank - 1)) if self.channels_first else values


@dataclass(frozen=True)
class Graph:
    """The steps of a model, and the keys of its input and output tensors."""

    model: keras.Model
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]

    @cached_property
    def axes(self) -> Axes:
        """Where the model's maps have their axes: as its first layer with a `data_format` takes them."""
        count = max(len(self.model.inputs[0].shape) - 2, 0)
        formats = (
            getattr(step.layer, "data_format", None)
            for step in self.steps
            if not isinstance(step.layer, OF_ANY_LAYOUT) and len(step.shapes[0]) == count + 2
        )
        return Axes(count, next((each for each in formats if each), None) == "channels_first")

    @property
    def built_sides(self) -> Shape:
        """The spatial sides of the image that the model was built for, None where they are open."""
        return self.axes.sides(self.model.inputs[0].shape)

    @cached_property
    def readers(self) -> dict[int, tuple[int, ...]]:
        """The indices of the steps that take each tensor, by its key."""
        readers: dict[int, list[int]] = {}
        for index, step in enumerate(self.steps):
            for key in dict.fromkeys(step.inputs):
                readers.setdefault(key, []).append(index)
        return {key: tuple(indices) for key, indices in readers.items()}

    def dependent_on(self, index: int) -> set[int]:
        """The keys of the tensors that depend on a step."""
        keys = set(self.steps[index].outputs)
        for step in self.steps[index + 1 :]:
            if keys & set(step.inputs):
                keys |= set(step.outputs)
        return keys


def trace(model: keras.Model) -> Graph:
    """List the steps of `model` in order of execution.

    Raises:
        InputError: where Keras keeps no graph of the model, or of one inside it, or what it computes is more than that
            graph: a `call` of its author's own.
    """
    inner = _functional(model)
    fresh = count()
    keys = {id(tensor): next(fresh) for tensor in inner.inputs}
    inputs = tuple(keys.values())
    steps = _with_global_poolings(_walk(inner, keys, "", fresh))
    outputs = tuple(keys[id(tensor)] for tensor in inner.outputs)
    return Graph(model, inputs, outputs, tuple(steps[index] for index in needed_steps(steps, (), outputs)))


def _with_global_poolings(steps: Iterator[Step]) -> list[Step]:
    """The steps, adaptive poolings to one position as global ones; a layer that is called twice stays one."""
    taken: dict[int, keras.Operation] = {}
    return [replace(step, layer=taken.setdefault(id(step.layer), as_global_pooling(step.layer))) for step in steps]


def check_model(model: object) -> None:
    """Refuse what is no model of Keras.

    Raises:
        InputError: for it.
    """
    if not isinstance(model, keras.Model):
        refuse("model", quoted(model), "a Keras model")


def _functional(model: keras.Model, name: str = "") -> keras.Model:
    """The Functional model whose graph is what `model`, whose path is `name`, computes."""
    check_model(model)
    what = f"model {name or model.name!r}"
    inner = graph_holder(model)
    if inner is None and isinstance(model, keras.Sequential):
        raise InputError(f"{what}: not built; give it an Input, or call it once")
    if inner is None:
        raise InputError(f"{what}: accepted: Functional or Sequential, received {type(model).__name__}")
    for method in ("call", "__call__"):
        if not is_from_keras(vars(model).get(method, getattr(type(model), method))):
            raise InputError(
                f"{what}: its class {type(model).__name__} has a `{method}` of its own, which computes what the graph "
                "of its layers does not say; accepted: one that is its graph, with that work done by layers inside it"
            )
    return inner


def _walk(
    model: keras.Model, keys: dict[int, int], prefix: str, fresh: Iterator[int], training: bool = False
) -> Iterator[Step]:
    for node in nodes_in_order(model):
        if any(id(tensor) not in keys for tensor in node.input_tensors):
            continue
        layer = node.operation
        path = f"{prefix}{layer.name}"
        sources = tuple(keys[id(tensor)] for tensor in node.input_tensors)
        in_training = training or bool(arguments(node)[1].get("training"))
        if isinstance(layer, keras.Model):
            # A shared model's inner tensors are the same objects at every call; each call has keys of its own.
            inner = _functional(layer, path)
            inside: dict[int, int] = {}
            for key, given, taken in zip(sources, node.input_tensors, _inputs_in_order(inner, node), strict=True):
                if len(given.shape) != len(taken.shape):
                    refuse(f"model {path!r}", f"an input of shape {given.shape}", f"its own, {taken.shape}")
                if given.dtype != taken.dtype:  # which a call of the model casts it to
                    cast = cast_node(given, taken.dtype)
                    made = next(fresh)
                    yield Step(cast.operation, f"{path}/cast", (key,), (made,), cast, in_training)
                    key = made
                inside[id(taken)] = key
            yield from _walk(inner, inside, f"{path}/", fresh, in_training)
            keys |= {id(outer): inside[id(result)] for outer, result in zip(node.outputs, inner.outputs, strict=True)}
            continue
        keys |= {id(tensor): next(fresh) for tensor in node.outputs}
        results = tuple(keys[id(tensor)] for tensor in node.outputs)
        yield Step(layer, path, sources, results, node, in_training)


def _inputs_in_order(model: keras.Model, node: Any) -> list[keras.KerasTensor]:
    """The inputs of a nested model as a call lists its tensors: by name where it gives them so."""
    args, kwargs = arguments(node)
    given = next(iter((*args, *kwargs.values())))
    if isinstance(given, dict) and not takes_dict(model):
        named = {tensor.name: tensor for tensor in model.inputs}
        return [named[name] for name in sorted(given)]
    return model.inputs


def needed_steps(steps: Sequence[Step], given: Collection[int], wanted: Collection[int]) -> list[int]:
    """The indices, in order, of the steps that make the `wanted` tensors, by their keys, from `given` ones."""
    missing = set(wanted) - set(given)
    kept = []
    for index, step in reversed(list(enumerate(steps))):
        if missing & set(step.outputs):
            missing = (missing - set(step.outputs)) | (set(step.inputs) - set(given))
            kept.append(index)
    return kept[::-1]


def run_steps(
    graph: Graph,
    values: dict[int, Any],
    wanted: Collection[int],
    applied: Sequence[keras.Operation | Callable | None] | None = None,
) -> dict[int, Any]:
    """The `wanted` tensors by their keys, computed from `values` of others, tensors of the backend.

    A tensor is given up as soon as no later step needs it; a call of the model keeps all of them to its end.

    `applied`: for every step what to call in its layer's place: another layer, with the step's arguments; a function
    of the step's inputs; or None, to hand the input on.
    """
    values, indices = dict(values), needed_steps(graph.steps, values, wanted)
    unused = last_uses([{*graph.steps[index].inputs, *graph.steps[index].outputs} for index in indices], wanted)
    for index, done in zip(indices, unused, strict=True):
        step = graph.steps[index]
        call = step.layer if applied is None else applied[index]
        if call is None:
            made = values[step.inputs[0]]
        elif isinstance(call, keras.Operation):
            args, kwargs = step.refill(values)
            made = call(*args, **kwargs)
            del args, kwargs
        else:
            made = call(*(values[key] for key in step.inputs))
        values |= dict(zip(step.outputs, keras.tree.flatten(made), strict=True))
        del made
        for key in done:
            del values[key]
    return {key: values[key] for key in wanted}


def known_shape(shape: Shape) -> tuple[int, ...]:
    """A shape of whole numbers alone.

    Raises:
        ValueError: where a side is open.
    """
    known = tuple(side for side in shape if side is not None)
    if len(known) < len(shape):
        raise ValueError(f"shape: received {shape}; accepted: one without open sides")
    return known


def shapes_at(graph: Graph, size: Shape | None) -> dict[int, Shape]:
    """The shape of every tensor without the batch, for an image of `size`; None where that leaves it open.

    Raises:
        InputError: naming the first layer that does not take that size.
    """
    sources = graph.model.inputs
    shapes = {key: tuple(tensor.shape[1:]) for key, tensor in zip(graph.inputs, sources, strict=True)}
    for step in graph.steps:
        shapes |= {key: tuple(made.shape[1:]) for key, made in zip(step.outputs, step.made, strict=True)}
    axes = graph.axes.spatial
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
            what = f"image_size: received {size}; layer {step.path!r} does not take it"
            raise InputError(f"{what}: {cause(error)}") from None
        if any(side is not None and side < 1 for tensor in made for side in tensor.shape):
            raise InputError(f"image_size: received {size}; nothing is left of it at layer {step.path!r}")
        values |= dict(zip(step.outputs, made, strict=True))
    return {key: tuple(tensor.shape[1:]) for key, tensor in values.items()}
