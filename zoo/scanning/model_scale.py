"""The scale at which a model sees images, and images brought to it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import refuse
from zoo.network.geometry import Geometry
from zoo.network.positions import pair
from zoo.network.scannable import Scannable
from zoo.pictures import Choice, open_picture, read_whole, scaled_size
from zoo.pictures.scale import scale_to, size_text
from zoo.scanning.pixels import Pixels, wanted

if TYPE_CHECKING:
    from zoo.card import Card

# Pixel sizes that differ by less are the same one, written with other digits.
_SAME = 0.01


def on_image(sides: Sequence[float], scale: tuple[float, float]) -> tuple[float, float]:
    """Sides in pixels that were scanned as ones of the given image, of which `scale` scanned ones make one."""
    return pair(side if by == 1 else side / by for side, by in zip(sides, scale, strict=True))


@contextmanager
def at_model_scale(card: "Card", image: Pixels, pixel_size: float | None = None) -> Iterator[Pixels]:
    """An image at the scale at which a model sees it, as `Card` says; one that was brought to it stays as it is.

    Args:
        card: the model's.
        image: the image at its own size.
        pixel_size: that of the image in micrometres, where it is stated.

    Raises:
        InputError: where the model needs a pixel size and there is none; where one is stated, and the model has nothing
            to compare it with; where the two sizes are too far apart.
    """
    if image.given is not None:
        yield image
        return
    scale, note = _scale_of(card, image, pixel_size)
    with image.resized(scaled_size(image.image_size, scale)) as scaled:
        brought = Pixels(scaled.source, file=image.file, given=image, scale_notes=() if note is None else (note,))
        brought.pixel_size = image.pixel_size if pixel_size is None else (pixel_size, pixel_size)
        yield brought


def read_at_model_scale(
    network: Scannable,
    path: str | Path,
    choice: Choice = Choice(),  # noqa: B008 - frozen
    pixel_size: float | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read an image file whole for a model: (H, W, C) at its scale, and what the user should know about it.

    Raises:
        InputError: where it cannot be read, or has other channels or another sample type than the model's images; for a
            model that takes something else than one image; see `at_model_scale`.
    """
    network.check_one_image()
    with open_picture(path, wanted(network), choice, math.inf) as picture:
        with at_model_scale(network.card, Pixels(picture, file=path), pixel_size) as pixels:
            return read_whole(pixels, pixels.name), pixels.notes


def _scale_of(card: "Card", image: Pixels, stated: float | None) -> tuple[tuple[float, float], str | None]:
    """What an image is scaled by, down and across, and what is to be said of that."""
    own = image.pixel_size
    if card.pixel_size is None:
        if stated is not None:
            refuse("pixel_size", f"{stated:g}", "none: the pixel size that this model was trained at is not known")
        if card.scale is None:
            return (1.0, 1.0), None
        known = f"states {size_text(own)} a pixel, the training images none" if own else "states no pixel size"
        return (card.scale, card.scale), f"{known}: taken at scale {card.scale:g}, as in training"
    size = own if stated is None else (stated, stated)
    if size is None:
        if card.scale is None:
            accepted = f"one in the file, or --pixel-size; the model was trained at {card.pixel_size:g} µm a pixel"
            refuse(image.name, "no pixel size", accepted)
        return (card.scale, card.scale), f"states no pixel size: taken at scale {card.scale:g}, as in training"
    scale = scale_to(size, card.pixel_size, image.name)
    differs = own is not None and any(abs(each / there - 1) > _SAME for each, there in zip(size, own, strict=True))
    note = (
        f"states {size_text(own)} a pixel, taken as {size_text(size)}, as asked"
        if own is not None and differs
        else None
    )
    return scale, note


def sides_record(
    geometry: Geometry,
    scale: tuple[float, float],
    window: tuple[float, float],
    windows: Mapping[float, tuple[float, float]],
) -> dict[str, Any]:
    """The numbers of a geometry in pixels of the given image, as JSON holds them.

    Args:
        geometry: that of the scanned pixels.
        scale: scanned pixels for each of the image's, (vertical, horizontal).
        window: the sides of a window in the image's pixels.
        windows: those at every scale, of a scan at several.
    """
    sides = {**geometry.to_dict(), "stride": list(on_image(geometry.stride, scale)), "windows": None}
    if not windows and scale == (1, 1):
        return sides
    # A scaled pixel is made from those within 1 / s of its centre, where s shrinks; within 1, where it enlarges.
    smallest = [min(windows or (1,)) * by for by in scale]
    sides["receptive_field"] = [
        None if math.isinf(side) else int(side) if by == 1 else math.ceil((side - 1) / by + 2 * max(1 / by, 1))
        for side, by in zip(geometry.receptive_field, smallest, strict=True)
    ]
    sides["window"] = [None if math.isinf(side) else side for side in window]
    if windows:
        sides["windows"] = [{"scale": at, "window": list(each)} for at, each in windows.items()]
    return sides
