"""A Keras model as a plain list of steps in order of execution, nested models laid open.

Describing, tracing geometry and converting all walk this list, so that they agree on what a model does.
"""

import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import keras
from keras import layers

from zoo.errors import InputError

# Layers that change images in training alone, and hand them on at inference.
AUGMENTATIONS = (
    layers.AugMix,
    layers.CutMix,
    layers.MixUp,
    layers.RandAugment,
    layers.RandomBrightness,
    layers.RandomColorDegeneration,
    layers.RandomColorJitter,
    layers.RandomContrast,
    layers.RandomElasticTransform,
    layers.RandomErasing,
    layers.RandomFlip,
    layers.RandomGaussianBlur,
    layers.RandomGrayscale,
    layers.RandomHue,
    layers.RandomInvert,
    layers.RandomPerspective,
    layers.RandomPosterization,
    layers.RandomRotation,
    layers.RandomSaturation,
    layers.RandomSharpness,
    layers.RandomShear,
    layers.RandomTranslation,
    layers.RandomZoom,
)
# Layers whose `data_format` does not say where maps have their channels.
_OF_ANY_LAYOUT = (layers.Flatten, *AUGMENTATIONS)


@dataclass(frozen=True)
class Step:
    """One call of one layer.

    `path` is the layer's name, after those of the models around it. `inputs` and `outputs` are keys of tensors, equal
    where the tensor is the same. `training`: whether it, or a model around it, is called with training=True.
    `refill(values)` gives the call's arguments, for inference, with values in place of its tensors.
    """

    layer: keras.Operation
    path: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    node: Any
    training: bool = False

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
        args, kwargs = self.node.arguments.fill_in({id(tensor): values[key] for tensor, key in tensors})
        # Augmentation layers are called with training=True, which Keras overrides where it predicts.
        return args, {**kwargs, "training": False} if kwargs.get("training") else kwargs


@dataclass(frozen=True)
class Layout:
    """Where maps (B, H, W, C), or (B, C, H, W), have their axes; `axes` spatial ones."""

    axes: int
    channels_first: bool = False

    @property
    def rank(self) -> int:
        """The number of axes of a map, with batch and channels."""
        return self.axes + 2

    @property
    def channel(self) -> int:
        """The axis of the channels."""
        return 1 if self.channels_first else self.axes + 1

    @property
    def spatial(self) -> slice:
        """The spatial axes."""
        return slice(2, None) if self.channels_first else slice(1, -1)

    def sides(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The spatial part of a map's shape with its batch."""
        return tuple(shape[self.spatial])

    def shape(self, sides: tuple[int | None, ...], channels: int) -> tuple[int | None, ...]:
        """The shape of a map without its batch."""
        return (channels, *sides) if self.channels_first else (*sides, channels)

    def at(self, *parts: slice) -> tuple[slice, ...]:
        """The index that takes a part along every spatial axis of a batch of maps."""
        whole = slice(None)
        return (whole, whole, *parts) if self.channels_first else (whole, *parts, whole)

    def last(self, values: Any) -> Any:
        """Maps with their channels as the last axis: (B, H, W, C)."""
        return values.transpose(0, *range(2, self.rank), 1) if self.channels_first else values


@dataclass(frozen=True)
class Graph:
    """The steps of a model, and the keys of its input and output tensors."""

    model: keras.Model
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]

    @cached_property
    def layout(self) -> Layout:
        """Where the model's maps have their axes: as its first layer with a `data_format` takes them."""
        axes = max(len(self.model.inputs[0].shape) - 2, 0)
        formats = (
            getattr(step.layer, "data_format", None)
            for step in self.steps
            if not isinstance(step.layer, _OF_ANY_LAYOUT) and len(step.shapes[0]) == axes + 2
        )
        return Layout(axes, next((each for each in formats if each), None) == "channels_first")


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
    return Graph(model, inputs, outputs, tuple(steps[index] for index in needed_steps(steps, (), outputs)))


def _walk(
    model: keras.Model, keys: dict[int, int], prefix: str, fresh: Iterator[int], training: bool = False
) -> Iterator[Step]:
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input or any(id(tensor) not in keys for tensor in node.input_tensors):
                continue
            layer = node.operation
            sources = tuple(keys[id(tensor)] for tensor in node.input_tensors)
            in_training = training or bool(node.arguments.kwargs.get("training"))
            if isinstance(layer, keras.Model):
                # A shared model's inner tensors are the same objects at every call; each call has keys of its own.
                inner = functional(layer)
                inside = dict(zip(map(id, _inputs_in_order(inner, node)), sources, strict=True))
                yield from _walk(inner, inside, f"{prefix}{layer.name}/", fresh, in_training)
                keys |= {
                    id(outer): inside[id(result)] for outer, result in zip(node.outputs, inner.outputs, strict=True)
                }
                continue
            keys |= {id(tensor): next(fresh) for tensor in node.outputs}
            results = tuple(keys[id(tensor)] for tensor in node.outputs)
            yield Step(layer, f"{prefix}{layer.name}", sources, results, node, in_training)


def _inputs_in_order(model: keras.Model, node: Any) -> list[keras.KerasTensor]:
    """The inputs of a nested model as a call lists its tensors: by name where it gives them so."""
    given = next(iter((*node.arguments.args, *node.arguments.kwargs.values())))
    if isinstance(given, dict) and not isinstance(model._inputs_struct, dict):
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


def unused_after(steps: Sequence[Step], wanted: Collection[int]) -> list[frozenset[int]]:
    """For each step, the keys of its tensors that no later step needs and that are not `wanted`."""
    needed = set(wanted)
    unused = []
    for step in reversed(steps):
        there = {*step.inputs, *step.outputs}
        unused.append(frozenset(there - needed))
        needed |= there
    return unused[::-1]


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
    unused = unused_after([graph.steps[index] for index in indices], wanted)
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


def check_one_image(graph: Graph, axes: tuple[int, ...] = (2,)) -> None:
    """See that the model takes one image with two spatial axes, or one of the other numbers of `axes`.

    Raises:
        InputError: for several inputs, a vector, or another number of axes.
    """
    shapes = [tuple(tensor.shape[1:]) for tensor in graph.model.inputs]
    if len(shapes) != 1 or len(shapes[0]) - 1 not in axes:
        form = "one image, (height, width, channels)"
        if 1 in axes:
            form += ", or one sequence, (length, channels)"
        received = " and ".join(str(shape) for shape in shapes)
        raise InputError(f"model {graph.model.name!r}: takes {received}; accepted: {form}")


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
        raise InputError(f"image_size: received {size}; accepted: {axes} number{'s' * (axes > 1)} above 0")
    return sides


def shapes_at(graph: Graph, size: tuple[int, ...] | None) -> dict[int, tuple[int | None, ...]]:
    """The shape of every tensor without the batch, for an image of `size`; None where that leaves it open.

    Raises:
        InputError: naming the first layer that does not take that size.
    """
    sources = graph.model.inputs
    shapes = {key: tuple(tensor.shape[1:]) for key, tensor in zip(graph.inputs, sources, strict=True)}
    for step in graph.steps:
        shapes |= {key: tuple(made.shape[1:]) for key, made in zip(step.outputs, step.node.outputs, strict=True)}
    axes = graph.layout.spatial
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
