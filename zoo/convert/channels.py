"""A model whose maps have their channels first, as the same function with its channels last."""

import math
from typing import Any

import keras
import numpy as np
from keras import layers

from zoo.convert.copy import Copy
from zoo.convert.places import rearranged
from zoo.errors import InputError, refuse
from zoo.network.graph import Axes, Step, known_shape
from zoo.network.keras_internals import adds_bias_along_columns
from zoo.network.layer_kinds import index_parts, is_along_last_axis, moves_numbers, operation_in
from zoo.network.network import Network


class ChannelsLast(Copy):
    """The network with maps (B, H, W, C) where it has (B, C, H, W): of images (B, H, W, C).

    Every layer's settings that name an axis name its new place. A map that is about to be rearranged to a vector is
    given to that layer with its channels first, so that the vector's numbers keep their order.
    """

    def __init__(self, network: Network):
        """Prepare the walk along a network with channels first."""
        super().__init__(network)
        self.source, self.axes = network.axes, Axes(network.axes.count)
        self.as_it_was: set[int] = set()  # tensors, by their keys, that have their axes as in the source

    def step(self, index: int, step: Step) -> None:
        """Build one step of the graph."""
        layer, kinds = step.layer, self.network.head.kinds
        on_map, gives_map = (len(shape) == self.source.rank for shape in (step.shapes[0], step.output_shape))
        if any(key in self.as_it_was for key in step.inputs):
            self.call(step, self.clone(step))
            self._keep(step)
        elif kinds[step.outputs[0]] == "vector" and moves_numbers(layer) and (on_map or gives_map):
            is_map = kinds[step.inputs[0]] == "map" and set(self.source.sides(step.shapes[0])) != {1}
            (self._rearrange if is_map else self._vector)(step)
        else:
            self._check(step, on_map)
            copy = self.clone(step, **self._changes(step, on_map or gives_map))
            args, kwargs = step.refill(self.tensors)
            if operation_in(layer, {"GetItem"}) and (on_map or gives_map):
                args = (args[0], self._index(args[1], step, on_map))
            elif not isinstance(layer, layers.Layer) and (on_map or gives_map):
                args, kwargs = keras.tree.map_structure(self._constant, (args, kwargs))
            self.give(step, copy(*args, **kwargs))

    def _check(self, step: Step, on_map: bool) -> None:
        if on_map and (isinstance(step.layer, layers.Dense) or is_along_last_axis(step.layer)):
            raise InputError(f"layer {step.path!r}: works along the last axis, and the channels are axis 1 here")
        if adds_bias_along_columns(step.layer, step.output_shape):
            refuse(
                f"layer {step.path!r}",
                f"{step.output_shape[-1]} columns for as many filters, for which Keras on TensorFlow adds a number of "
                "the bias to each column",
                "another number of either, or channels last",
            )

    def _changes(self, step: Step, is_map: bool) -> dict[str, object]:
        """The settings of a layer that name an axis of a map, by its new place."""
        layer, changes = step.layer, dict[str, object]()
        if is_map and getattr(layer, "data_format", None) == "channels_first":
            changes["data_format"] = "channels_last"
        for name in ("axis", "shared_axes"):
            axes = getattr(layer, name, None)
            if axes is not None and is_map:
                moved = [self._moved(each) for each in (axes if isinstance(axes, list | tuple) else [axes])]
                changes[name] = moved if isinstance(axes, list | tuple) else moved[0]
        if isinstance(layer, layers.Rescaling) and is_map:
            changes |= {name: _plain(self._constant(getattr(layer, name))) for name in ("scale", "offset")}
        if operation_in(layer, {"Tile"}) and is_map:
            changes["repeats"] = self._constant(np.ones((1, *layer.repeats[-self.source.rank + 1 :]))).shape
        return changes

    def _rearrange(self, step: Step) -> None:
        """A map that becomes a vector, or begins to, keeps its numbers in their order up to there."""
        if isinstance(step.layer, layers.Flatten) and step.layer.data_format == "channels_first":
            self.call(step, self.clone(step, data_format="channels_last"))  # which has put the channels last itself
            return
        source = self.tensors[step.inputs[0]]
        first = (self.source.rank - 1, *range(1, self.source.rank - 1))
        turn = layers.Permute(first, dtype=source.dtype, name=self.name(step, "_channels_first"))
        self.call(step, self.clone(step), {step.inputs[0]: turn(source)})
        self._keep(step)

    def _keep(self, step: Step) -> None:
        self.as_it_was |= {key for key in step.outputs if len(step.output_shape) > 2}

    def _vector(self, step: Step) -> None:
        """A vector (C,) as (C, 1, 1), or the other way round, or some of its numbers."""
        source, own = self.tensors[step.inputs[0]], known_shape(step.shapes[0][1:])
        form = known_shape(step.output_shape[1:])
        if len(form) == self.source.rank - 1:
            if math.prod(form) != max(form):
                refuse(f"layer {step.path!r}", f"a vector to shape as {form}", "(C, 1, 1)")
            if max(form) == form[0]:
                form = (*form[1:], form[0])
            else:  # which is no form that a map of one position has
                self._keep(step)
        numbers = np.arange(math.prod(own), dtype=np.int32)
        taken = rearranged(step, numbers.reshape(own)).ravel()
        if not np.array_equal(taken, numbers):
            source = keras.ops.take(keras.ops.reshape(source, (-1, len(numbers))), taken, axis=-1)
        self.give(step, layers.Reshape(form, dtype=source.dtype, name=self.name(step))(source))

    def _moved(self, axis: int) -> int:
        """Where an axis of a map lies now."""
        axis %= self.source.rank
        return 0 if axis == 0 else self.axes.channel if axis == 1 else axis - 1

    def _constant(self, value: Any) -> Any:
        """A constant that meets a map, which is the same at every position; tensors are as they are."""
        if isinstance(value, str | keras.KerasTensor) or not np.ndim(value):
            return value
        array = np.asarray(value)
        array = array.reshape((1,) * (self.source.rank - array.ndim) + array.shape)
        return np.moveaxis(array, 1, -1)

    def _index(self, key: Any, step: Step, on_map: bool) -> tuple:
        """An index of channels, of a map or a new axis of a plane, with that part last."""
        if not on_map:
            return (..., None)
        part = [each for each in index_parts(key, self.source.rank) if each is not None][1]
        if isinstance(part, int) and len(step.output_shape) == self.source.rank:  # x[:, 0, None]
            part = slice(part, part + 1 or None)
        return (..., part)


def _plain(value: Any) -> Any:
    """An array as numbers in lists, which a layer's settings hold."""
    return value.tolist() if isinstance(value, np.ndarray) else value
