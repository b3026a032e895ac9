"""How much memory a tile takes, the largest tile that a budget allows, and what the pictures of a map need."""

from collections.abc import Callable
from typing import NoReturn

import numpy as np
import psutil

from zoo.errors import InputError, quoted, refuse
from zoo.network.finer import FinerGeometry
from zoo.network.geometry import Geometry
from zoo.network.scannable import Scannable
from zoo.scanning.byte_counts import bytes_text
from zoo.scanning.grid import Grid

# What a tile may take where no budget is given.
_DEFAULT = 2**30
# The largest tile: beyond it the pixels that tiles share are few, and less is lost to an interruption.
_LARGEST = 2048
# What the backend keeps beside the tensors: thread stacks, compiled kernels, freed blocks; 40 to 130 MiB.
_RESERVE = 160 * 2**20
# What the runtime and the pictures of a map take, matplotlib included: 120 to 320 MiB, whatever the size of the image.
_PICTURES = 340 * 2**20
# What kernels take for patches and reordered copies: the zoo's nets were measured at 1.0 to 1.5 times their tensors.
_WORKSPACE = 1.6


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return psutil.Process().memory_info().rss


def tile_memory(network: Scannable, geometry: Geometry | None = None) -> Callable[[int, int], int]:
    """The function (height, width) -> bytes: what an engine takes for pixels of that size, at most.

    That is the largest sum of tensors that live at a time, and what kernels take to work on them. A layer's output
    counts twice while the layer is at work, because a bias, a normalisation and an activation make a tensor each. With
    the geometry of a finer grid, it is what fragments take: without padding a layer's phases are picked from its input,
    and made, joined and sorted one after the other.
    """
    program, bytes_of = network.program, network.bytes_a_position
    steps = list(zip(program.instructions, program.unused_after(), strict=True))
    pixel = 3 * network.channels * network.dtype.itemsize
    finer = geometry if isinstance(geometry, FinerGeometry) and geometry.padding_free else None

    def positions(side: int, axis: int) -> dict[int, int]:
        if finer is None:
            return program.sizes(axis, side)
        lattices = finer.lattices(axis, side)
        return {key: lattice.length * lattice.fragments for key, lattice in lattices.items()}

    def need(height: int, width: int) -> int:
        rows, columns = positions(height, 0), positions(width, 1)
        size = {key: rows[key] * columns[key] * bytes_of[key] for key in rows}
        living = peak = size[program.image]
        for each, unused in steps:
            made = size[each.output]
            at_work = sum(size[key] for key in each.inputs) + 3 * made if finer else 2 * made
            peak = max(peak, living + at_work)
            living += made - sum(size[key] for key in unused)
        return int(_WORKSPACE * peak) + height * width * pixel + _RESERVE

    return need


def available() -> int:
    """Bytes of memory that programs can take without swapping."""
    return psutil.virtual_memory().available


def choose_tile(network: Scannable, grid: Grid, memory: int | None, scores: int = 0) -> int:
    """The largest tile, in pixels a side, with which the process stays within `memory` bytes.

    Without a budget a tile may take 1 GiB on top of what the process holds, or what a tile as large as the receptive
    field takes where that is more. `scores` bytes are held for the score map until the end.

    Raises:
        InputError: where not even a tile of one cell, or a model's image that cannot be cut, fits the budget.
    """
    geometry, held = grid.geometry, resident() + scores
    need = tile_memory(network, geometry)
    height, width = geometry.known_size
    if not geometry.bounded:
        budget = available() if memory is None else memory - held
        if need(height, width) > budget:
            raise InputError(
                f"image: {height} x {width} pixels take {bytes_text(held + need(height, width), up=True)} in one pass, "
                "and a block inside this model pools over the whole image, so it is not cut into tiles; accepted: what "
                f"fits {bytes_text(budget + held)}"
            )
        return max(height, width)

    stride = max(geometry.stride)

    def bytes_with(cells: int) -> int:
        return need(*grid.tile_size(cells * stride))

    budget = _DEFAULT if memory is None else memory - held
    fewest, most = 0, max(_LARGEST // stride, 1)
    while fewest < most:
        middle = (fewest + most + 1) // 2
        if bytes_with(middle) <= budget:
            fewest = middle
        else:
            most = middle - 1
    if memory is None:
        return max(fewest, min(max(geometry.field_sides), _LARGEST // 2) // stride, 1) * stride
    if not fewest:
        _refuse(memory, held, bytes_with(1), " and a score map in memory (none with an output file)")
    return fewest * stride


def check_pictures(memory: int | None) -> None:
    """Check that the process may hold, beside what it holds, what the pictures of a map take.

    Raises:
        InputError: where `memory`, in bytes, is less.
    """
    held = resident()
    if memory is not None and memory < held + _PICTURES:
        _refuse(memory, held, _PICTURES, ", the rest for the runtime and pictures of the map")


def _refuse(memory: int, held: int, further: int, parts: str) -> NoReturn:
    least = bytes_text(held + further, up=True)
    accepted = f"at least {least}, {bytes_text(held)} of them for the process as it is{parts}"
    refuse("memory", bytes_text(memory), accepted)


def check_tile(tile: object, geometry: Geometry) -> None:
    """Check that a side of tiles is one, and tiles can be cut.

    Raises:
        InputError: where it is not, or the cells depend on the whole image.
    """
    if tile is None:
        return
    stride = max(geometry.stride)
    if not isinstance(tile, int | np.integer) or isinstance(tile, bool) or tile < stride:
        refuse("tile", quoted(tile), f"a whole number of pixels, at least one stride, {stride}")
    if not geometry.bounded:
        raise InputError("tile: a block inside this model pools over the whole image, so it is scanned whole only")
