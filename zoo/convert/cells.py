"""Cells of large images, each beside the crop that it stands for: what trust in a conversion is measured on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from zoo.convert.copy import in_float32
from zoo.convert.oracle import random_images
from zoo.errors import refuse
from zoo.network.geometry import Geometry
from zoo.network.network import Network
from zoo.network.outputs import scores_before
from zoo.network.program import Ints
from zoo.progress import track

# Scores of cells and of crops, (cells, classes) both.
Answers = tuple[np.ndarray, np.ndarray]
# An image (h, w, C), an array or what is read by slices like one, and what it is called.
NamedImage = tuple[str, Any]
NOISE = "noise"
# Cells along each axis of an image of noise; as many in all along a sequence.
_SIDE = 6
# Cells of the images that are given, all together; they lie in at most so many parts of an image that is not run whole.
_CELLS, _PARTS = 100, 4
MOST_IMAGES = _CELLS
# Pixels a side above which an image is not run whole, and pixels of crops that are run at once.
_PART, _AT_ONCE = 1024, 2**20


@dataclass(frozen=True)
class _Sample:
    """A part of an image, (1, h, w, C), some of its cells, each with the top left of its box; scores of each output."""

    image: np.ndarray
    corners: list[Ints]
    scores: list[np.ndarray]


@dataclass(frozen=True)
class Samples:
    """Cells of some images. `names`: those of the images; `too_small`: of those that no window fits into."""

    names: tuple[str, ...]
    too_small: tuple[str, ...]
    samples: list[_Sample]
    network: Network
    progress: bool

    def against(self, other: Network, offset: Ints, size: Ints) -> list[Answers]:
        """For each output: scores of the cells, and of another network on a crop for each.

        Args:
            other: gives one answer for a crop.
            offset: where the crop begins, from the top left of the cell's box; crops that leave the image are left out.
            size: the crop's sides.
        """
        axes, whole = self.network.axes, in_float32(other)
        at_once = max(_AT_ONCE // math.prod(size), 1)
        jobs: list[tuple[_Sample, list[tuple[int, Ints]]]] = []
        for sample in self.samples:
            sides = _sides(self.network, sample.image[0])
            starts = [
                (index, tuple(first + more for first, more in zip(corner, offset, strict=True)))
                for index, corner in enumerate(sample.corners)
            ]
            inside = [
                (index, start)
                for index, start in starts
                if all(0 <= s and s + side <= most for s, side, most in zip(start, size, sides, strict=True))
            ]
            jobs += [(sample, inside[first : first + at_once]) for first in range(0, len(inside), at_once)]
        pairs: list[tuple[list[np.ndarray], list[np.ndarray]]] = [([], []) for _ in self.network.model.outputs]
        for sample, some in track(jobs, "crops", len(jobs)) if self.progress else jobs:
            crops = [
                sample.image[axes.at(*(slice(s, s + side) for s, side in zip(start, size, strict=True)))]
                for _, start in some
            ]
            expected = scores_before(whole.graph, other.axes.own(np.concatenate(crops)))
            for (cells, answered), scores, given in zip(pairs, sample.scores, expected, strict=True):
                cells.append(scores[[index for index, _ in some]])
                answered.append(given.reshape(len(some), -1))
        return [(np.concatenate(cells), np.concatenate(answered)) for cells, answered in pairs if cells]


def _sides(network: Network, image: Any) -> Ints:
    """The spatial sides of an image (h, w, C)."""
    return tuple(int(side) for side in image.shape[: network.axes.count])


def samples_of(network: Network, images: Sequence[NamedImage] | None = None, progress: bool = False) -> Samples:
    """Cells of images, spread at random, at most 100 of all images together; without images, of one of noise.

    Args:
        network: a converted one, whose geometry has a window.
        images: at most 100, with their names. Parts of large ones are run.
        progress: show a bar where the cells are compared, on a terminal.

    Raises:
        InputError: where no image is as large as the window, or there is none.
    """
    shape, generator = network.geometry(), np.random.default_rng(0)
    if math.inf in shape.window:
        refuse(f"model {network.name!r}", "cells that look at the whole image, and have no crop", "a converted head")
    if images is None:
        cells = _SIDE if network.axes.count == 2 else _SIDE**2
        size = [side + (cells - 1) * step for side, step in zip(shape.window_sides, shape.stride, strict=True)]
        noise = random_images(network, 1, shape.fitting(*size))
        sample = _sample(network, noise, shape.fitting(*size), (0,) * network.axes.count, _SIDE**2, generator)
        return Samples((NOISE,), (), [sample], network, progress)
    if not 0 < len(images) <= MOST_IMAGES:
        refuse("images", len(images), f"1 to {MOST_IMAGES}")
    fitting = [each for each in images if fits(network, each[1])]
    if not fitting:
        sizes = [_sides(network, image) for _, image in images]
        received = f"{sizes[0]}" if len(images) == 1 else f"{len(images)} of at most {max(sizes)}"
        refuse("image", received, f"at least the window {tuple(shape.window)}")
    samples: list[_Sample] = []
    for index, (_, image) in enumerate(fitting):
        count = (_CELLS - sum(len(each.corners) for each in samples)) // (len(fitting) - index)
        samples += _samples(network, shape, image, max(count, 1), generator)
    names = tuple(name for name, _ in fitting)
    return Samples(names, tuple(name for name, _ in images if name not in names), samples, network, progress)


def named_images(images: Any | Sequence[Any]) -> list[NamedImage]:
    """An image, or a list of them, with the names of the files that they are read from, where those are known."""
    images = list(images) if isinstance(images, list | tuple) else [images]
    files = [getattr(image, "file", None) for image in images]
    number = "" if len(images) == 1 else " {}"
    names = [Path(file).name if file else f"the image given{number.format(at)}" for at, file in enumerate(files, 1)]
    return list(zip(names, images, strict=True))


def fits(network: Network, image: Any) -> bool:
    """Whether an image has a whole window of a converted network, and its layers take it."""
    shape, sides = network.geometry(), _sides(network, image)
    return all(side >= least for side, least in zip(sides, shape.window, strict=True)) and shape.fits(*sides)


def _samples(
    network: Network, shape: Geometry, image: Any, count: int, generator: np.random.Generator
) -> list[_Sample]:
    """Cells of an image: of the whole, or of parts of it that are cut out on the whole's grid."""
    whole = _sides(network, image)
    sides = []
    for side, window, stride in zip(whole, shape.window_sides, shape.stride, strict=True):
        part = min(side, max(_PART, window + _SIDE * stride))
        # Congruent to the whole modulo the stride, by which strided SAME layers pad.
        sides.append(part - (part - side) % stride)
    parts = min(_PARTS, count) if tuple(sides) != tuple(whole) and shape.fits(*sides) else 1
    if parts == 1 and not shape.fits(*sides):
        sides = list(whole)
    samples: list[_Sample] = []
    for index in range(parts):
        steps = [
            generator.integers(0, (most - side) // stride + 1)
            for most, side, stride in zip(whole, sides, shape.stride, strict=True)
        ]
        starts = [int(step) * stride for step, stride in zip(steps, shape.stride, strict=True)]
        region = tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))
        pixels = np.asarray(image[region])[None].astype(network.dtype, copy=False)
        wanted = (count - sum(len(each.corners) for each in samples)) // (parts - index)
        ends = tuple(most - start for most, start in zip(whole, starts, strict=True))
        samples.append(_sample(network, pixels, ends, tuple(starts), max(wanted, 1), generator))
    return samples


def _sample(
    network: Network, image: np.ndarray, ends: Ints, starts: Ints, count: int, generator: np.random.Generator
) -> _Sample:
    """Some cells of a part of an image, which begins at `starts` in it and could reach to `ends`.

    Those whose boxes lie in it, and, where there are such, whose fields no border cuts but the image's own.
    """
    axes = network.axes
    sides = _sides(network, image[0])
    grid, fcn = network.geometry(sides), in_float32(network)
    scores = [each[0] for each in scores_before(fcn.graph, image)]
    boxes = [(cell, grid.cell_box(*cell)) for cell in product(*map(range, scores[0].shape[:-1]))]
    inside = [
        (cell, box)
        for cell, box in boxes
        if all(box[axis] >= 0 and box[axis + axes.count] <= sides[axis] for axis in range(axes.count))
    ]
    whole = [each for each in inside if _sees_the_same(grid, each[0], sides, starts, ends)] or inside
    order = generator.permutation(len(whole))[:count]
    chosen = [whole[index][0] for index in order]
    corners = [whole[index][1][: axes.count] for index in order]
    return _Sample(image, corners, [each[tuple(np.array(chosen).T)] for each in scores])


def _sees_the_same(grid: Geometry, cell: Ints, sides: Ints, starts: Ints, ends: Ints) -> bool:
    """Whether a cell of a part of an image sees there what it sees in the whole."""
    numbers = zip(grid.first_pixel(), cell, grid.stride, grid.receptive_field, sides, starts, ends, strict=True)
    return all(
        (first + index * stride >= 0 or start == 0) and (first + index * stride + reach <= side or side == end)
        for first, index, stride, reach, side, start, end in numbers
    )
