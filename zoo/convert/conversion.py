"""A classifier as a fully-convolutional model: the same function at the training size, on images of any size."""

from dataclasses import dataclass
from typing import Literal, get_args

import keras

from zoo.card import Card, attach
from zoo.convert.channels import ChannelsLast
from zoo.convert.copy import Copy
from zoo.convert.oracle import check_graph, check_sizes, demand_equality, error_at_training_size, error_on_larger_maps
from zoo.convert.sliding_head import HeadPooling, SlidingHead
from zoo.convert.twin import padding_free_twin
from zoo.errors import InputError, quoted, refuse
from zoo.network.head import refuse_broadcasts, refuse_unknown_reach
from zoo.network.marks import mark_name
from zoo.network.network import Network
from zoo.settings import own_settings

Padding = Literal["keep", "valid"]


@dataclass(frozen=True)
class Conversion:
    """A converted network, and how far it was from its source when it was checked; None where there was no such check.

    `error_at_training_size`: of its single cell there. `error_of_inner_cells`: of a padding-free twin, at the padded
    net's cells that no border cuts.
    """

    network: Network
    error_at_training_size: float | None = None
    error_of_inner_cells: float | None = None


@own_settings()
def convolutionalize(
    model: keras.Model,
    image_size: tuple[int, ...] | None = None,
    pooling: HeadPooling = "window",
    padding: Padding = "keep",
) -> keras.Model:
    """Turn a classifier's Dense head into convolutions: (B, h, w, C) -> (B, rows, cols, classes), h and w free.

    The result is a new model of the same layers and built-in ones with equal weights; `model` is not changed. At the
    training size it gives one cell, with the source's outputs. The conversion is checked, in float32 at least, on
    random images of that size, and its head on every window of a larger map. A model of sequences is converted alike,
    (B, l, C) -> (B, cells, classes). A model whose maps have their channels first comes back with its channels last.

    Args:
        model: a Functional or Sequential classifier with one image input. A fully-convolutional model comes back as
            it is, or anew with height and width free where its input fixes them.
        image_size: (height, width), or (length,), that the model was trained at, needed where its input leaves it open.
        pooling: "window" pools over windows of the training size, so that every cell answers for one such window;
            "global" pools over the whole image, whatever its size, to one cell.
        padding: "keep", or "valid" for the padding-free twin: the same weights without any padding, branches and
            shortcuts cropped so that they meet. Each cell answers for a window of the receptive field's size, and
            equals the padded net's wherever that cell's field is not cut by the border.

    Raises:
        InputError: naming the layer, where the head cannot be slid, or its field is infinite and so has no twin; where
            the training size is not known, or a layer does not take it; for pooling="global" of a model without a head,
            or beside padding="valid"; for a model that computes something else than its graph says, or was converted
            with pooling="global" before.
        RuntimeError: where the self-check fails.
    """
    return convert(Network.of(model, image_size), pooling, padding).network.model


def convert(network: Network, pooling: HeadPooling = "window", padding: Padding = "keep") -> Conversion:
    """`convolutionalize` for a network, which comes back itself where there is nothing to convert, with its checks.

    Raises:
        InputError, RuntimeError: see `convolutionalize`.
    """
    for name, value, accepted in (("pooling", pooling, get_args(HeadPooling)), ("padding", padding, get_args(Padding))):
        if value not in accepted:
            refuse(name, quoted(value), ", ".join(map(repr, accepted)))
    if (pooling, padding) == ("global", "valid"):
        refuse(
            "padding",
            "'valid' with pooling='global'",
            "pooling='window', for one answer from the whole image has no finite field",
        )
    network.check_one_image((1, 2))
    if network.card.pooling == "global":
        raise InputError(
            f"model {network.name!r}: was converted with pooling='global', so it gives one answer for an image of any "
            "size and no map; `zoo predict` takes it, accepted here: its source"
        )
    refuse_unknown_reach(network.graph, network.head)
    if pooling == "global" and not network.head.collapses:
        received = f"'global' for model {network.name!r}, which has no head and gives a map"
        refuse("pooling", received, "'window', or a classifier")
    for output in range(len(network.graph.outputs)):
        network.check_channels(output)
    if network.axes.channels_first:
        network = channels_last(network)
    opened = _opened(network, pooling)
    if padding == "keep":
        return opened
    twin, error = padding_free_twin(opened.network, _training_size(network))
    return Conversion(twin, error_of_inner_cells=error)


def channels_last(network: Network) -> Network:
    """The same function of images (B, H, W, C), of a network whose maps have their channels first.

    Raises:
        InputError, RuntimeError: see `convolutionalize`.
    """
    # A map that was trained at no size that is known is compared at any.
    size = network.training_size or (None if network.head.collapses else network.smallest_image)
    size = size or _training_size(network)
    model = ChannelsLast(network).run(network.graph.built_sides)
    check_graph(network, size)
    last = Network.of(attach(model, network.card), network.training_size if network.built_size is None else None)
    demand_equality(network, error_at_training_size(network, last, size), "the training size, with its channels last")
    return last


def _opened(network: Network, pooling: HeadPooling) -> Conversion:
    """The network with its head made to slide, and height and width free."""
    if not network.head.collapses and network.built_size is None:
        return Conversion(network)
    size = _training_size(network)
    refuse_broadcasts(network.graph, network.head, network.shapes(size))
    network.program.spans(size)
    check_sizes(network, size)
    about = network.card.model_dump()
    if network.head.collapses:
        about |= {"image_size": size, "pooling": pooling, "window": size if pooling == "window" else None}
        mark = mark_name(Card.model_validate(about)) if pooling == "window" else ""
        model = SlidingHead(network, pooling, mark).run()
    else:
        model = Copy(network, suffix="_fcn").run()
    check_graph(network, size)
    converted = Network.of(attach(model, Card.model_validate(about)))
    _refuse_fixed_sides(converted)
    error = error_at_training_size(network, converted, size)
    demand_equality(network, error, "the training size")
    if network.head.collapses:
        demand_equality(network, error_on_larger_maps(network, converted, pooling), "a larger size")
    return Conversion(converted, error)


def _refuse_fixed_sides(converted: Network) -> None:
    """Check that no layer gives maps of one size to images of any.

    Raises:
        InputError: naming the first that does.
    """
    axes, kinds = converted.axes, converted.head.kinds
    for step in converted.graph.steps:
        is_open = any(None in shape[1:] for shape in step.shapes)
        is_map = kinds[step.outputs[0]] == "map" and len(step.output_shape) == axes.rank
        if is_open and is_map and None not in step.output_shape[1:]:
            sides = " x ".join(map(str, axes.sides(step.output_shape)))
            refuse(f"layer {step.path!r}", f"images of any size, and gives maps of {sides}", "maps that grow with them")


def _training_size(network: Network) -> tuple[int, ...]:
    """The training size.

    Raises:
        InputError: where it is not known.
    """
    if network.training_size is not None:
        return tuple(network.training_size)
    sides = ("length",) if network.axes.count == 1 else ("height", "width")
    raise InputError(
        f"model {network.name!r}: its input leaves {' and '.join(sides)} open; give the training size as "
        f"image_size=({', '.join(sides)}{',' * (len(sides) == 1)})"
    )
