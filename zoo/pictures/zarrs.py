"""Zarr: single arrays, groups with one, OME-Zarr's multiscales and bioformats2raw's layout."""

import itertools
import math
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import refuse
from zoo.pictures.arrays import colour_of
from zoo.pictures.scale import Size, zarr_pixel_size
from zoo.pictures.stored import Colour, Parts, Stored, check_samples, check_shape
from zoo.pictures.wanted import Choice, Wanted, choose

METADATA = ("zarr.json", ".zarray", ".zgroup")
# Bytes of a metadata file: more than any store's, even where those of all its arrays are kept together.
_MOST_METADATA = 2**25
_NAMES = {**dict.fromkeys(("c", "ch", "channel", "channels", "band", "bands", "s", "rgb"), "c"), "y": "y", "x": "x"}


def open_zarr(path: Path, wanted: Wanted, choice: Choice, cache: float) -> Stored:
    """Open the folder of a Zarr array or group, of version 2 or 3.

    Raises:
        InputError: where it is none, is broken, or holds no picture; where a level, series or page is not there.
    """
    import zarr

    name = f"image {path}"
    for each in (*METADATA, ".zattrs", ".zmetadata"):
        if (file := path / each).is_file() and file.stat().st_size > _MOST_METADATA:
            refuse(f"{name}: {each}", f"{file.stat().st_size:,} bytes", f"{_MOST_METADATA:,}")
    try:
        node = zarr.open(path, mode="r")
    except FileNotFoundError:
        refuse(name, "a folder", "an image file, or the folder of a Zarr array")
    node, scales, notes = _one_series(node, name, choice)
    array, levels, axes, pixel_size = _levels(node, scales, name, choice.level)
    colour: Colour | None = None
    if axes is None:
        check_shape(name, array.shape, wanted.channels)
        axes = list("yxc"[: array.ndim])
        colour = colour_of(array.shape[2] if array.ndim == 3 else 1)
    else:
        axes = [_NAMES.get(str(axis).lower(), str(axis).lower()) for axis in axes]
    at = _plane(array, axes, name, choice)
    stored = dict(zip(axes, array.shape, strict=True))
    shape = (stored["y"], stored["x"], stored.get("c", 1))
    if colour is None:
        colour = "grey" if shape[2] == 1 else "bands"
    dtype = check_samples(name, array.dtype, wanted.mask)
    side = tuple(array.chunks[axes.index(axis)] for axis in "yx")
    order = [axis for axis in axes if axis in "yxc"]

    def decode(i: int, j: int) -> np.ndarray:
        rows, columns = (slice(index * part, (index + 1) * part) for index, part in zip((i, j), side, strict=True))
        region = {"y": rows, "x": columns, "c": slice(None), **at}
        pixels = np.asarray(array[tuple(region[axis] for axis in axes)])
        pixels = pixels if "c" in order else pixels[..., None]
        named = order if "c" in order else [*order, "c"]
        return pixels.transpose([named.index(axis) for axis in "yxc"]).astype(dtype, copy=False)

    # What is decoded of an array in version 3 that has shards is the chunk inside, and the chunks of all channels.
    across = math.ceil(shape[2] / (array.chunks[axes.index("c")] if "c" in axes else 1))
    held = math.prod(array.chunks) * array.dtype.itemsize * across
    read = Parts(name, "chunk", shape, dtype, side, decode, held).reader(cache)
    y, x = axes.index("y"), axes.index("x")
    sizes = tuple((level.shape[y], level.shape[x]) for level in levels)
    return Stored(shape, dtype, read, colour, pixel_size=pixel_size, notes=tuple(notes), levels=sizes)


def _one_series(node: Any, name: str, choice: Choice) -> tuple[Any, dict | None, list[str]]:
    """One image: the group or array that holds it, its multiscales where it has them, and notes on the choice.

    A group holds an image for every entry of its multiscales; in bioformats2raw's layout those of the groups 0, 1 and
    so on are counted through.
    """
    import zarr

    groups = [node]
    if isinstance(node, zarr.Group) and "bioformats2raw.layout" in _attributes(node):
        groups = [node[str(number)] for number in takewhile(lambda number: str(number) in node, itertools.count())]
        if not groups:
            accepted = "groups 0, 1 and so on"
            refuse(name, "bioformats2raw's layout without an image", accepted)
    every = [(group, scales) for group in groups for scales in _multiscales(group)]
    several = f"holds {len(every)} images, of which series 0 is read; --series 0 to {len(every) - 1} chooses one"
    notes = [several] if len(every) > 1 and choice.series is None else []
    return *every[choose(name, "series", choice.series or 0, len(every))], notes


def _multiscales(node: Any) -> list[dict | None]:
    """The entries of a group's multiscales; a single None where there are none."""
    import zarr

    return list(_attributes(node).get("multiscales") or [None]) if isinstance(node, zarr.Group) else [None]


def _attributes(node: Any) -> dict:
    attributes = node.attrs.asdict()
    inside = attributes.get("ome")
    return {**attributes, **inside} if isinstance(inside, dict) else attributes


def _levels(
    node: Any, scales: dict | None, name: str, level: int
) -> tuple[Any, list[Any], list[str] | None, Size | None]:
    """The array of `level`, those of all levels, the names of their axes, and the size of a pixel in `level`."""
    import zarr

    if scales is not None:
        datasets, axes = scales["datasets"], scales.get("axes", list("tczyx"))
        choose(name, "level", level, len(datasets))
        chosen, paths = node[datasets[level]["path"]], [entry["path"] for entry in datasets]
        # Of a pyramid that is not written to its end, the levels that are there.
        arrays = [node[each] for each in takewhile(lambda each: each in node, paths)]
        names = [axis["name"] if isinstance(axis, dict) else axis for axis in axes]
        return chosen, arrays, names, zarr_pixel_size(scales, datasets[level], axes)
    if isinstance(node, zarr.Group):
        inside = dict(node.arrays())
        if len(inside) != 1:
            received = ", ".join(sorted(inside)[:5]) or "none"
            refuse(name, f"a Zarr group of arrays: {received}", "the path of one array")
        (node,) = inside.values()
    choose(name, "level", level, 1)
    stated = node.attrs.get("_ARRAY_DIMENSIONS") or getattr(node.metadata, "dimension_names", None)
    return node, [node], list(stated) if stated and all(stated) else None, None


def _plane(array: Any, axes: list[str], name: str, choice: Choice) -> dict[str, int]:
    """Where the picture lies along axes other than y, x and c: the only entry of each, or the page that is chosen."""
    sides = ", ".join(f"{axis} {side}" for axis, side in zip(axes, array.shape, strict=False))
    if len(axes) != array.ndim or len(set(axes)) != len(axes) or not {"y", "x"} <= set(axes) or 0 in array.shape:
        refuse(name, f"axes {sides or array.shape}", "y, x and c, and pages beside them")
    others = {axis: side for axis, side in zip(axes, array.shape, strict=True) if axis not in "yxc"}
    count = math.prod(others.values())
    if count > 1 and choice.page is None:
        refuse(
            name,
            f"axes {sides}",
            f"y, x and c, and others of one entry, or one image, chosen by --page 0 to {count - 1}",
        )
    index = np.unravel_index(choose(name, "page", choice.page or 0, count), tuple(others.values()))
    return {axis: int(place) for axis, place in zip(others, index, strict=True)}
