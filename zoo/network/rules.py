"""From layers to moves, in one table; a user's own layers are added to it by `register_layer`.

A rule is asked about one call of one layer on at least one map. What a rule refuses is refused by the layer's name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import keras
from keras import layers

from zoo.errors import InputError, refuse
from zoo.network import layer_kinds
from zoo.network.constants import check_constants, constants, works_on_each_number
from zoo.network.graph import Axes, Step
from zoo.network.keras_internals import is_from_keras, is_scale_of_applications
from zoo.network.layer_kinds import (
    AXIS_OPERATIONS,
    ELEMENTWISE_OPERATIONS,
    GLOBAL_POOLINGS,
    MERGING_OPERATIONS,
    REDUCTIONS,
    axes_of,
    index_parts,
    is_along_last_axis,
    is_elementwise,
    operation_in,
)
from zoo.network.moves import Border, Everywhere, Move, Pointwise, Repeat, Slide

# What a tensor is: a map with positions and channels, a plane, without channels, or a vector, without positions.
Kind = Literal["map", "plane", "vector"]
GlobalPooling = layer_kinds.GlobalPooling
LayerRule = Callable[[keras.Layer], Move | Sequence[Move]]


@dataclass(frozen=True)
class Call:
    """A step, what its inputs are, and where its network's maps have their axes."""

    step: Step
    kinds: tuple[Kind, ...]
    axes: Axes

    @property
    def layer(self) -> Any:
        """The layer that is called."""
        return self.step.layer

    @property
    def on_planes(self) -> bool:
        """Whether an input is a plane."""
        return "plane" in self.kinds

    def along(self, move: Callable[..., Move], *settings: int | Sequence[int]) -> tuple[Move, ...]:
        """A move for each axis, of settings that are one number, or one for each axis."""
        count = self.axes.count
        sides = ((value,) * count if isinstance(value, int) else tuple(value)[:count] for value in settings)
        return tuple(move(*numbers) for numbers in zip(*sides, strict=True))

    def refuse(self, why: str, accepted: str = "") -> NoReturn:
        """Refuse the layer by its path."""
        raise InputError(f"layer {self.step.path!r}: {why}" + (f"; accepted: {accepted}" if accepted else ""))


_GLOBAL_OPERATIONS: dict[str, GlobalPooling] = {"Mean": "average", "Max": "max", "Amax": "max"}
_OWN_LAYERS: dict[type[keras.Layer], LayerRule] = {}


def register_layer(kind: type[keras.Layer], rule: LayerRule) -> None:
    """Tell the zoo what a layer of your own does to positions, so that models with it are converted and scanned.

    Args:
        kind: the layer's class, exactly; register it with `keras.saving.register_keras_serializable` too, so that it
            loads. It takes maps (B, H, W, C), or (B, L, C), of any size.
        rule: from a layer to its move, or one for each axis, of `zoo.network.moves`: `Pointwise()` where every
            position is computed from itself alone, `Slide(kernel, stride, dilation, same)` for a window, `Border`,
            `Repeat`, or `Everywhere()`. A layer with `padding="same"` has a setting of that name, if it is to have a
            padding-free twin.

    Raises:
        InputError: where `kind` is no layer class, or one of Keras's own.

    Example:
        >>> zoo.register_layer(Blur, lambda layer: Slide(layer.kernel_size))
    """
    if not (isinstance(kind, type) and issubclass(kind, keras.Layer)) or is_from_keras(kind):
        refuse("register_layer", getattr(kind, "__name__", repr(kind)), "a class of your own, derived from keras.Layer")
    _OWN_LAYERS[kind] = rule


def refuse_own_code(step: Step) -> None:
    """Refuse a layer, or an activation inside it, that is neither Keras's own nor registered.

    Raises:
        InputError: naming the layer, for a Lambda, or code of the model's author.
    """
    layer = step.layer
    if isinstance(layer, layers.Lambda):
        raise InputError(
            f"layer {step.path!r}: a Lambda runs code of its own, whose reach over positions is not known, and is not "
            "converted; accepted: a layer class with a rule of its own (zoo.register_layer)"
        )
    patched = {"call", "__call__"} & set(vars(layer))
    if patched or (not is_from_keras(type(layer)) and type(layer) not in _OWN_LAYERS):
        raise InputError(
            f"layer {step.path!r} ({type(layer).__name__}): code of its author's own, whose reach over positions "
            "is not known; accepted: layers of Keras, and those that zoo.register_layer was called for"
        )
    activation = getattr(layer, "activation", None)
    if isinstance(activation, keras.Operation):
        known = is_from_keras(type(activation)) and is_elementwise(activation)
    else:
        known = activation is None or layer_kinds.is_of_keras(activation)
    if not known and type(layer) not in _OWN_LAYERS:
        raise InputError(f"layer {step.path!r}: activation {_named(activation)}; accepted: activations of Keras")


def moves_of(step: Step, kinds: Mapping[int, Kind], axes: Axes) -> tuple[Move, ...]:
    """What a step does along each spatial axis; `kinds` says what its inputs are, by their keys.

    Raises:
        InputError: naming the layer, where it is none whose reach is known.
    """
    refuse_own_code(step)
    call = Call(step, tuple(kinds[key] for key in step.inputs), axes)
    layer = call.layer
    if type(layer) in _OWN_LAYERS:
        return _own_moves(layer, axes.count)
    rule = next((_RULES[kind] for kind in type(layer).__mro__ if kind in _RULES), None)
    if rule is None and not isinstance(layer, layers.Layer):
        rule = _OPERATIONS.get(type(layer).__name__)
    if rule is None and is_scale_of_applications(type(layer)):
        rule = _pointwise
    if rule is None:
        raise InputError(f"layer {step.path!r} ({type(layer).__name__}): {_why_not_local(layer)}")
    return rule(call)


def _own_moves(layer: keras.Layer, count: int = 1) -> tuple[Move, ...]:
    """The moves that a registered layer's rule gives; one that it gives for all `count` axes is repeated."""
    moves = _OWN_LAYERS[type(layer)](layer)
    return (moves,) * count if isinstance(moves, Move) else tuple(moves)


def global_pooling(step: Step, axes: Axes) -> GlobalPooling | None:
    """How a step pools a map over all positions, as a layer or as an operation of keras.ops; None where it does not."""
    kind = GLOBAL_POOLINGS.get(type(step.layer))
    if kind is not None:
        return kind if _layout_is(step.layer, axes) else None
    rank = len(step.shapes[0])
    is_global = rank == axes.rank and set(axes_of(step.layer, rank)) == set(range(rank)[axes.spatial])
    return _GLOBAL_OPERATIONS.get(type(step.layer).__name__) if is_global else None


def _windows(call: Call, kernel: Any, strides: Any, dilation: Any) -> tuple[Move, ...]:
    _check_maps(call)
    padding = call.layer.padding
    if padding not in ("same", "valid", "causal"):
        call.refuse(f"padding {padding!r}", "same, valid, causal")
    _check_last_axis(call)
    return call.along(lambda k, s, d: Slide(k, s, d, padding == "same", padding == "causal"), kernel, strides, dilation)


def _convolution(call: Call) -> tuple[Move, ...]:
    return _windows(call, call.layer.kernel_size, call.layer.strides, call.layer.dilation_rate)


def _pooling(call: Call) -> tuple[Move, ...]:
    return _windows(call, call.layer.pool_size, call.layer.strides, 1)


def _padding(call: Call) -> tuple[Move, ...]:
    _check_maps(call)
    pairs = call.layer.padding
    return tuple(Border(*pair) for pair in ([pairs] if call.axes.count == 1 else pairs))


def _cropping(call: Call) -> tuple[Move, ...]:
    _check_maps(call)
    pairs = call.layer.cropping
    return tuple(Border(-before, -after) for before, after in ([pairs] if call.axes.count == 1 else pairs))


def _upsampling(call: Call) -> tuple[Move, ...]:
    _check_maps(call)
    if getattr(call.layer, "interpolation", "nearest") != "nearest":
        call.refuse(f"{call.layer.interpolation} interpolation", "nearest")
    return call.along(Repeat, call.layer.size)


def _global(call: Call) -> tuple[Move, ...]:
    _check_maps(call)
    return (Everywhere(),) * call.axes.count


def _pointwise(call: Call) -> tuple[Move, ...]:
    if call.on_planes:
        _check_planes(call)
    else:
        _check_last_axis(call)
        _check_channel_axis(call)
        _check_shared_weights(call)
        check_constants(call.step, call.axes)
    return (Pointwise(),) * call.axes.count


def _reduction(call: Call) -> tuple[Move, ...]:
    """A mean or maximum over the channels, or over all positions."""
    rank = len(call.step.shapes[0])
    if global_pooling(call.step, call.axes):
        return _global(call)
    if call.on_planes or axes_of(call.layer, rank) != (call.axes.channel,):
        call.refuse(f"works along axis {call.layer.axis}", f"the channels, axis {call.axes.channel}")
    return (Pointwise(),) * call.axes.count


def _index(call: Call) -> tuple[Move, ...]:
    """An index that takes channels, one or several, at all positions: x[..., ::-1], x[..., 0]."""
    channel, maps = call.axes.channel, list(range(call.axes.rank))
    names = [axis for axis in maps if not (call.on_planes and axis == channel)]
    left, parts = list(names), index_parts(call.step.arguments[0][1], len(names))
    kept, others = [], []
    for part in parts:
        axis = channel if part is None else left.pop(0)
        kept += [axis] if part is None or isinstance(part, slice) else []
        others += [part] if axis != channel else []
    whole = all(isinstance(part, slice) and part == slice(None) for part in others)
    if not whole or kept not in (maps, [axis for axis in maps if axis != channel]):
        call.refuse("takes a part of the positions, by numbers that are those of one size", "an index of channels")
    return (Pointwise(),) * call.axes.count


def takes_one_position(step: Step, axes: Axes) -> bool:
    """Whether a step on a map is an index that takes the channels of one position: x[:, 0, 0]."""
    if not operation_in(step.layer, {"GetItem"}) or len(step.shapes[0]) != axes.rank:
        return False
    parts = index_parts(step.arguments[0][1], axes.rank)
    return None not in parts and all(isinstance(part, int) for part in parts[axes.spatial])


def _tile(call: Call) -> tuple[Move, ...]:
    """Channels, so many times over."""
    repeats = call.layer.repeats
    repeats = [1] * (call.axes.rank - len(repeats)) + list(repeats)
    if call.on_planes or any(each != 1 for axis, each in enumerate(repeats) if axis != call.axes.channel):
        call.refuse("repeats rows or columns", f"the channels, axis {call.axes.channel}")
    return (Pointwise(),) * call.axes.count


def _stack(call: Call) -> tuple[Move, ...]:
    """Planes as the channels of a map, or the like: the axis that comes, or goes, is that of the channels."""
    rank = max(len(call.step.output_shape), len(call.step.shapes[0]))
    goes = operation_in(call.layer, {"Squeeze"})
    if set(call.kinds) != {"map" if goes else "plane"} or axes_of(call.layer, rank) != (call.axes.channel,):
        call.refuse(f"works along axis {call.layer.axis}", f"the channels, axis {call.axes.channel}")
    return (Pointwise(),) * call.axes.count


_RULES: dict[type, Callable[[Call], tuple[Move, ...]]] = {
    **dict.fromkeys(layer_kinds.CONVOLUTIONS, _convolution),
    **dict.fromkeys(layer_kinds.POOLINGS, _pooling),
    **dict.fromkeys(layer_kinds.PADDINGS, _padding),
    **dict.fromkeys(layer_kinds.CROPPINGS, _cropping),
    **dict.fromkeys(layer_kinds.UPSAMPLINGS, _upsampling),
    **dict.fromkeys(GLOBAL_POOLINGS, _global),
    **dict.fromkeys((*layer_kinds.POINTWISE, *layer_kinds.MERGES, *layer_kinds.AUGMENTATIONS), _pointwise),
}
_OPERATIONS: dict[str, Callable[[Call], tuple[Move, ...]]] = {
    **dict.fromkeys((*ELEMENTWISE_OPERATIONS, *MERGING_OPERATIONS, *AXIS_OPERATIONS), _pointwise),
    **dict.fromkeys(("HSVToRGB", "RGBToGrayscale", "RGBToHSV"), _pointwise),
    **dict.fromkeys(REDUCTIONS, _reduction),
    **dict.fromkeys(("ExpandDims", "Squeeze", "Stack"), _stack),
    "GetItem": _index,
    "Tile": _tile,
}


def is_pointwise(layer: keras.Operation) -> bool:
    """Whether `layer` treats every position by itself, of vectors too."""
    if type(layer) in _OWN_LAYERS:
        return all(isinstance(move, Pointwise) for move in _own_moves(layer))
    if not isinstance(layer, layers.Layer):
        return _OPERATIONS.get(type(layer).__name__) is _pointwise
    return any(_RULES.get(kind) is _pointwise for kind in type(layer).__mro__) or is_scale_of_applications(type(layer))


def _check_maps(call: Call) -> None:
    """Layers with windows and borders take maps whose channels are where those of all others are."""
    if call.on_planes:
        call.refuse("takes a map without an axis of channels, whose columns it would take for them")
    if not _layout_is(call.layer, call.axes):
        call.refuse(f"data_format is {call.layer.data_format}, unlike that of the layers before it")
    if isinstance(call.layer, layers.Cropping1D | layers.UpSampling1D) and call.axes.channels_first:
        call.refuse("takes the last axis for the channels, which are axis 1 here")


def _check_planes(call: Call) -> None:
    """On planes nothing works along an axis, or has numbers of its own for one; maps and planes do not merge."""
    merges = operation_in(call.layer, MERGING_OPERATIONS) or isinstance(call.layer, layer_kinds.MERGES)
    along = isinstance(call.layer, layers.Concatenate) or set(call.kinds) != {"plane"}
    alone = all(set(shape) <= {1} for shape in constants(call.step))
    if not (works_on_each_number(call.step) or (merges and not along and alone)):
        call.refuse("takes a map without an axis of channels", "what works on each number by itself")


def _check_last_axis(call: Call) -> None:
    """Dense layers and softmax activations work along the last axis, which are columns where channels come first."""
    if not call.axes.channels_first or len(call.step.output_shape) != call.axes.rank:
        return
    if isinstance(call.layer, layers.Dense) or is_along_last_axis(call.layer):
        call.refuse("works along the last axis, and the channels are axis 1 here")


def _check_channel_axis(call: Call) -> None:
    """Normalisation, softmax or concatenation along rows or columns is not local."""
    rank = max(len(call.step.output_shape), len(call.step.shapes[0]))
    accepted = f"the channels, axis {call.axes.channel}"
    if operation_in(call.layer, AXIS_OPERATIONS) and call.layer.axis is None:
        call.refuse("works along all axes", accepted)
    wrong = [axis for axis in axes_of(call.layer, rank) if axis != call.axes.channel]
    if wrong and rank == call.axes.rank:
        call.refuse(f"works along axis {wrong[0]}", accepted)


def _check_shared_weights(call: Call) -> None:
    """A slope of its own at every position belongs to maps of one size alone."""
    axes = call.axes
    if isinstance(call.layer, layers.PReLU) and len(call.step.output_shape) == axes.rank:
        if any(side != 1 for side in axes.sides((None, *call.layer.alpha.shape))):
            shared = list(range(1, axes.rank))[axes.channels_first :][: axes.count]
            call.refuse(
                f"has weights of its own at every position, {tuple(call.layer.alpha.shape)}",
                f"PReLU with shared_axes={shared}",
            )


def _layout_is(layer: keras.Operation, axes: Axes) -> bool:
    """Whether a layer, if it asks, takes the axis for its channels that the other layers take."""
    expected = "channels_first" if axes.channels_first else "channels_last"
    return getattr(layer, "data_format", None) in (None, expected)


def _named(activation: Any) -> str:
    """An activation as its author calls it: a function of TensorFlow by its public name."""
    public = getattr(activation, "_tf_api_names", ())
    if public:
        return f"tf.{public[0]}, a function of TensorFlow"
    return repr(getattr(activation, "__name__", type(activation).__name__))


def _why_not_local(layer: keras.Operation) -> str:
    name = type(layer).__name__
    if "Attention" in name:
        return "looks at all positions at once, so it cannot be slid"
    if isinstance(layer, layers.RNN | layers.Bidirectional):
        return "a recurrent layer carries what it saw from position to position, so it cannot be slid"
    if layer_kinds.rearranges(layer):
        return "moves numbers from one position to another, and what follows is not the vector that a Dense layer takes"
    if isinstance(layer, layers.GroupNormalization):
        return "normalises over all positions together, so it cannot be slid"
    if isinstance(layer, layers.AdaptiveAveragePooling1D | layers.AdaptiveAveragePooling2D):
        sides, one = (" x ".join(map(str, each)) for each in (layer.output_size, (1,) * len(layer.output_size)))
        return f"pools images of any size to {sides} positions; accepted: output_size {one}, a global pooling"
    if isinstance(layer, layers.CenterCrop | layers.RandomCrop | layers.Resizing):
        return "makes every image one size, so no image gives more than one cell; accepted: the model after it"
    return "its reach over positions is not known"
