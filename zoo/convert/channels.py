"""A model whose maps have their channels first, as the same function with its channels last."""

from typing import Any

import keras
import numpy as np
from keras import layers

from zoo.convert.copy import Copy
from zoo.errors import InputError, refuse
from zoo.network.graph import Axes, Step
from zoo.network.layer_kinds import is_along_last_axis, operation_in, rearranges
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

    def step(self, index: int, step: Step) -> None:
        """Build one step of the graph."""
        layer, rank = step.layer, len(step.output_shape)
        on_map = len(step.shapes[0]) == self.source.rank
        if on_map and (isinstance(layer, layers.Dense) or is_along_last_axis(layer)):
            raise InputError(f"layer {step.path!r}: works along the last axis, and the channels are axis 1 here")
        if on_map and rearranges(layer) and set(self.source.sides(step.shapes[0])) != {1}:
            self._rearrange(step)
            return
        changes: dict[str, object] = {}
        if getattr(layer, "data_format", None) == "channels_first":
            changes["data_format"] = "channels_last"
        for name in ("axis", "shared_axes"):
            axes = getattr(layer, name, None)
            if axes is not None and (on_map or rank == self.source.rank):
                moved = [self._moved(each) for each in (axes if isinstance(axes, list | tuple) else [axes])]
                changes[name] = moved if isinstance(axes, list | tuple) else moved[0]
        if isinstance(layer, layers.Rescaling) and on_map:
            changes |= {name: _plain(self._constant(getattr(layer, name))) for name in ("scale", "offset")}
        if rearranges(layer) and rank == self.source.rank:  # a vector (C,) as (C, 1, 1)
            sides = self.source.sides(step.output_shape)
            if set(sides) != {1}:
                refuse(f"layer {step.path!r}", f"a vector to shape as {step.output_shape[1:]}", "(C, 1, 1)")
            changes["target_shape"] = (*sides, step.output_shape[1])
        if isinstance(layer, layers.Layer):
            self.call(step, self.clone(step, **changes))
        else:
            self._operation(step, changes, on_map)

    def _rearrange(self, step: Step) -> None:
        source = step.inputs[0]
        if isinstance(step.layer, layers.Flatten) and step.layer.data_format == "channels_first":
            self.call(step, self.clone(step, data_format="channels_last"))  # which has put the channels last itself
            return
        first = (self.source.rank - 1, *range(1, self.source.rank - 1))
        turned = layers.Permute(first, name=self.name(step, "_channels_first"))(self.tensors[source])
        self.call(step, self.clone(step), {source: turned})

    def _operation(self, step: Step, changes: dict[str, object], on_map: bool) -> None:
        """An operation of keras.ops: with its settings changed, its index turned, or its constants."""
        operation = step.layer
        if changes:
            settings = {name: getattr(operation, name) for name in ("axis", "keepdims", "data_format")
                        if hasattr(operation, name)}  # fmt: skip
            operation = type(operation)(**{**settings, **changes})
        args, kwargs = step.refill(self.tensors)
        if operation_in(operation, {"GetItem"}) and (on_map or len(step.output_shape) == self.source.rank):
            args = (args[0], self._index(args[1], len(step.shapes[0])), *args[2:])
        elif on_map or len(step.output_shape) == self.source.rank:
            args, kwargs = keras.tree.map_structure(self._constant, (args, kwargs))
        self.give(step, operation(*args, **kwargs))

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

    def _index(self, key: Any, rank: int) -> tuple:
        """An index of channels, of a map or a new axis of a plane, with that part last."""
        parts = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis not in parts:
            parts.append(Ellipsis)
        at = parts.index(Ellipsis)
        parts[at : at + 1] = [slice(None)] * (rank - sum(part is not None for part in parts) + 1)
        return (parts[0], *parts[2:], parts[1])


def _plain(value: Any) -> Any:
    """An array as numbers in lists, which a layer's settings hold."""
    return value.tolist() if isinstance(value, np.ndarray) else value
