"""A classifier as a fully-convolutional model: the same function at the training size, on images of any size."""

import math
from typing import Literal

import keras

from zoo.card import Card, attach, card
from zoo.convert.check import error_at_training_size, error_on_larger_maps
from zoo.convert.copy import Rebuild
from zoo.convert.head import Pooling, SlidingHead
from zoo.convert.twin import padding_free_twin
from zoo.errors import InputError
from zoo.network.graph import Graph, check_one_image, check_size, shapes_at, trace
from zoo.network.head import head_collapses, refuse_broadcasts, refuse_unknown_reach
from zoo.network.program import program_of
from zoo.settings import own_settings

# The largest relative difference that the self-check lets pass, in float32: rounding alone stays far below it.
_TOLERANCE = 1e-4


@own_settings()
def convolutionalize(
    model: keras.Model,
    image_size: tuple[int, ...] | None = None,
    pooling: Pooling = "window",
    padding: Literal["keep", "valid"] = "keep",
) -> keras.Model:
    """Turn a classifier's Dense head into convolutions: (B, h, w, C) -> (B, rows, cols, classes), h and w free.

    The result is a new model of built-in Keras layers with equal weights; `model` is not changed. At the training
    size it gives one cell, with the source's outputs. The conversion is checked, in float32, on random images of that
    size, and its head on every window of a larger map. A model of sequences is converted alike, (B, l, C) -> (B,
    cells, classes); maps may have their channels first.

    Args:
        model: a Functional or Sequential classifier with one image input. A fully-convolutional model comes back as
            it is, or anew with height and width free where its input fixes them.
        image_size: (height, width) that the model was trained at, needed where its input leaves them open.
        pooling: "window" pools over windows of the training size, so that every cell answers for one such window;
            "global" pools over the whole image, whatever its size, to one cell.
        padding: "keep", or "valid" for the padding-free twin: the same weights without any padding, branches and
            shortcuts cropped so that they meet. Each cell answers for a window of the receptive field's size, and
            equals the padded net's wherever that cell's field is not cut by the border.

    Raises:
        InputError: naming the layer, where the head cannot be slid, or its field is infinite and so has no twin; where
            the training size is not known, or a layer does not take it; for a model that was converted with
            pooling="global" before.
        RuntimeError: where the self-check fails.
    """
    for name, value, accepted in (("pooling", pooling, ("window", "global")), ("padding", padding, ("keep", "valid"))):
        if value not in accepted:
            raise InputError(f"{name}: received {value!r}; accepted: {', '.join(map(repr, accepted))}")
    if (pooling, padding) == ("global", "valid"):
        raise InputError("padding: received 'valid' with pooling='global'; accepted: pooling='window', for one answer "
                         "from the whole image has no finite field")  # fmt: skip
    graph = trace(model)
    check_one_image(graph, axes=(1, 2))
    if card(model).pooling == "global":
        raise InputError(
            f"model {model.name!r}: was converted with pooling='global', so it gives one answer for an image of any "
            "size and no map; `zoo predict` takes it, accepted here: its source"
        )
    collapses = head_collapses(graph)
    refuse_unknown_reach(graph, collapses)
    converted = _opened(model, graph, collapses, image_size, pooling)
    return converted if padding == "keep" else padding_free_twin(converted, _training_size(model, graph, image_size))


def _opened(
    model: keras.Model, graph: Graph, collapses: frozenset[int], image_size: tuple[int, ...] | None, pooling: Pooling
) -> keras.Model:
    """The model with its head made to slide, and height and width free."""
    if not collapses and None in graph.layout.sides(model.inputs[0].shape):
        return model
    size = _training_size(model, graph, image_size)
    refuse_broadcasts(graph, shapes_at(graph, size))
    program_of(graph, size).spans(size)
    about = card(model).model_dump()
    if collapses:
        converted = SlidingHead(graph, collapses, size, pooling).run()
        about |= {"image_size": size, "pooling": pooling, "window": size if pooling == "window" else None}
    else:
        converted = Rebuild(graph, suffix="_fcn").run()
    attach(converted, Card.model_validate(about))
    errors = {"the training size": error_at_training_size(model, converted, size)}
    if collapses:
        errors["a larger size"] = error_on_larger_maps(graph, converted, collapses, size, pooling)
    for where, error in errors.items():
        if not math.isfinite(error):
            raise InputError(
                f"model {model.name!r}: its scores are not finite at {where}, computed in float32; accepted: a model "
                "whose training did not diverge"
            )
        if not error <= _TOLERANCE:
            raise RuntimeError(
                f"conversion of {model.name!r} failed its check: relative error {error:.1e} at {where}; this is a "
                "fault of the converter, please report the model's layers"
            )
    return converted


def _training_size(model: keras.Model, graph: Graph, image_size: tuple[int, ...] | None) -> tuple[int, ...]:
    built = graph.layout.sides(model.inputs[0].shape)
    given = None if image_size is None else check_size(image_size, len(built))
    if None not in built:
        if given is not None and given != built:
            raise InputError(f"image_size: received {given}; accepted for this model: {built}, or none")
        return built
    if given is not None and any(side not in (None, own) for side, own in zip(built, given, strict=True)):
        raise InputError(f"image_size: received {given}; accepted for this model: {built}, with a number for each None")
    known = given or card(model).image_size
    if known is None:
        sides = ("length",) if len(built) == 1 else ("height", "width")
        raise InputError(
            f"model {model.name!r}: its input leaves {' and '.join(sides)} open; give the training size as "
            f"image_size=({', '.join(sides)}{',' * (len(sides) == 1)})"
        )
    return tuple(known)
