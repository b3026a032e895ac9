"""A picture of any size as a tiled TIFF, which is read region by region."""

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from zoo.errors import refuse
from zoo.files import check_output, replacing
from zoo.made_by import MadeBy
from zoo.pictures.picture import Picture, open_picture
from zoo.pictures.wanted import Choice, Wanted
from zoo.progress import track

_TILE = 512


def write_tiled(
    path: str | Path,
    output: str | Path,
    choice: Choice = Choice(),  # noqa: B008 - frozen
    progress: bool = False,
    say: Callable[[str], None] | None = None,
    made_by: MadeBy | None = None,
) -> Path:
    """Write a picture of any size as a tiled BigTIFF (Deflate).

    The picture is written upright; what its channels are, alpha included, and the size of its pixels stay. The strips,
    tiles or chunks of `path` are decoded whole, so it takes as much memory as the largest of them; PNG, JPEG and BMP
    files as much as twice their pixels. `progress` shows a bar, on a terminal; `say` is called with what the user
    should know of the picture, a line each. The file names the command that it is `made_by`.

    Raises:
        InputError: where `path` is no picture (see `open_picture`) or one of floats, or `output` does not end in .tif.
    """
    import tifffile

    output = check_output(output, "output", ".tif")
    with (
        open_picture(path, Wanted(alpha=True), choice, math.inf, math.inf) as picture,
        replacing(output, made_by) as temporary,
    ):
        height, width, channels = picture.shape
        if picture.dtype.kind == "f":
            refuse(f"image {path}", f"{picture.dtype} samples", "8 or 16 bits")
        corners = list(product(range(0, height, _TILE), range(0, width, _TILE)))
        shown = track(corners, "writing", len(corners)) if progress else corners
        tifffile.imwrite(
            temporary,
            (picture[top : top + _TILE, left : left + _TILE] for top, left in shown),
            shape=picture.shape if channels > 1 else picture.shape[:2],
            dtype=picture.dtype,
            tile=(_TILE, _TILE),
            planarconfig="contig" if channels > 1 else None,
            compression="zlib",
            predictor=True,
            bigtiff=True,
            **_tags(picture),
        )
    if say is not None:
        for note in picture.notes:
            say(note)
    return output


def _tags(picture: Picture) -> dict[str, Any]:
    """What a TIFF says of the picture's channels and of the size of its pixels."""
    channels = picture.shape[2]
    colours = 3 if picture.colour == "rgb" else 1
    alpha = "assocalpha" if picture.multiplied else "unassalpha"
    tags: dict[str, Any] = {"photometric": "rgb" if colours == 3 else "minisblack"}
    if channels > colours:
        tags["extrasamples"] = [
            alpha if index == picture.alpha else "unspecified" for index in range(colours, channels)
        ]
    if picture.pixel_size is not None:
        vertical, horizontal = picture.pixel_size
        tags |= {"resolution": (1e4 / horizontal, 1e4 / vertical), "resolutionunit": "CENTIMETER"}
    return tags
