"""Crops of large images with one label each: objects, and places where none is."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from zoo.data.scene_files import ScaledPixels
from zoo.data.splits import IN_MEMORY, RecordedSplit, Records, pixel_digest
from zoo.objects.cell_labels import marked_cells, scene_labels
from zoo.objects.marked import Scene, Scenes
from zoo.pictures import as_pixel

# Places of an image among which those of background are drawn.
_PLACES = 2**20
# The share of what is trained on that marks are to have, however few they are: see docs/correcting.md.
MARKED = 0.25


@dataclass(frozen=True)
class _Places:
    """The crops of one image: the `corners` (n, 2) of their windows, top and left, and their `labels` (n,)."""

    corners: np.ndarray
    labels: np.ndarray

    @classmethod
    def about(cls, middles: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> "_Places":
        """The windows of `size` whose middles are nearest to these places, (n, 2)."""
        return cls(np.floor(middles - np.divide(size, 2) + 0.5).astype(int), labels)

    def with_more(self, others: "_Places") -> "_Places":
        """These crops, and then those of others that are at none of their places."""
        known = set(map(tuple, self.corners.tolist()))
        new = [tuple(corner) not in known for corner in others.corners.tolist()]
        corners, labels = others.corners[new], others.labels[new]
        return _Places(np.concatenate([self.corners, corners]), np.concatenate([self.labels, labels]))


class Crops:
    """Random access to windows of large images, (N, h, w, C), filled where they end beyond the border."""

    def __init__(
        self,
        scenes: Sequence[Scene],
        of: np.ndarray,
        corners: np.ndarray,
        size: tuple[int, int],
        fill: tuple[float, ...] = (0.0,),
    ):
        """Name the images, and for each crop its image's index (N,), and its top left corner (N, 2); see `Scenes`."""
        self._scenes, self._of, self._corners = scenes, of, corners
        first = scenes[0].pixels if scenes else np.zeros((*size, 1), np.uint8)
        self.shape, self.dtype = (len(of), *size, first.shape[2]), np.dtype(first.dtype)
        self._fill = as_pixel(fill, self.dtype)

    def __len__(self) -> int:
        """How many crops."""
        return len(self._of)

    def __getitem__(self, index: np.ndarray | slice) -> np.ndarray:
        """Read crops, (n, h, w, C)."""
        chosen = np.arange(len(self))[index]
        crops = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        crops[...] = self._fill
        for scene in np.unique(self._of[chosen]):
            numbers = np.flatnonzero(self._of[chosen] == scene)
            pixels = self._scenes[scene].pixels
            places = [overlap(self._corners[at], self.shape[1:3], pixels.shape) for at in chosen[numbers]]
            regions = [region for region, _ in places]
            read = pixels.read(regions) if isinstance(pixels, ScaledPixels) else (pixels[region] for region in regions)
            for number, (_, inside), part in zip(numbers, places, read, strict=True):
                crops[number][inside] = part
        return crops


def overlap(
    corner: Sequence[int], size: Sequence[int], image: Sequence[int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a crop of `size` that begins at `corner` and an image of so many rows and columns overlap.

    Returns:
        The region in the image, and in the crop.
    """
    of_image, of_crop = [], []
    for start, length, side in zip(corner, size, image, strict=False):
        first, last = (min(max(int(place), 0), side) for place in (start, start + length))
        of_image.append(slice(first, last))
        of_crop.append(slice(first - start, last - start))
    return (of_image[0], of_image[1]), (of_crop[0], of_crop[1])


def crops_of(
    part: Sequence[Scene],
    scenes: Scenes,
    digests: Mapping[str, str],
    specimens: Mapping[str, str | None],
    size: tuple[int, int],
) -> RecordedSplit:
    """A crop about every object, and in every image as many where its cells' label is background, if there is one.

    An image without objects has as many of background as the others have objects on average. Where these lie is drawn
    from the image's content, and is a function of no seed. Of marks there are more crops, at different places of their
    cells: the share `MARKED` of all crops, as far as there are so many places.

    Args:
        part: the images.
        scenes: what they are of, for the background and the tolerance.
        digests: the SHA-256 of each one's content, by its name.
        specimens: what each is of, by its name; None where that is not asked for.
        size: (height, width) of a crop in scanned pixels.
    """
    counts = [len(scene.objects) for scene in part if len(scene.objects) and scene.is_labelled]
    usual = max(round(float(np.mean(counts))), 1) if counts else 1
    places = [_places(scene, scenes, digests[scene.name], size, usual) for scene in part]
    if marks := sum(len(scene.marks) for scene in part):
        total = sum(len(each.labels) for each in places)
        of_each = math.ceil(total * MARKED / (1 - MARKED) / marks)
        more = [_at_marks(scene, scenes, digests[scene.name], size, of_each) for scene in part]
        places = [first.with_more(second) for first, second in zip(places, more, strict=True)]
    of = np.repeat(np.arange(len(part)), [len(each.labels) for each in places])
    corners = np.concatenate([np.zeros((0, 2), int), *(each.corners for each in places)])
    labels = np.concatenate([np.zeros(0, np.int32), *(each.labels for each in places)]).astype(np.int32)
    at, crops = list(zip(of.tolist(), corners, strict=True)), Crops(part, of, corners, size, scenes.fill)
    names = np.array([_name(part[index], corner, size) for index, corner in at], object)
    if math.prod(crops.shape) * crops.dtype.itemsize <= IN_MEMORY:
        images: np.ndarray | Crops = (held := crops[:])
        found = np.fromiter(map(pixel_digest, held), np.uint64, len(held))
    else:
        images = crops
        found = np.array([_digest(digests[part[index].name], corner) for index, corner in at], np.uint64)
    specimen = [specimens[scene.name] for scene in part]
    known = None if None in specimen else np.array(specimen, object)[of]
    records = Records(names, found, np.full((len(of), 2), size), known)
    return RecordedSplit(images, labels, records)


def _places(scene: Scene, scenes: Scenes, digest: str, size: tuple[int, int], usual: int) -> _Places:
    """The crops of an image: those of its objects, in their order, and then of background."""
    objects = scene.scanned_objects
    if scenes.background is None:
        return _Places.about(objects.centres, objects.classes, size)
    # Of an image that is known at its marks alone, these are all.
    number = (len(objects) or usual) * scene.is_labelled
    # Everywhere, as long as the image is small.
    step = max(math.ceil(math.sqrt(math.prod(scene.pixels.shape[:2]) / _PLACES)), 1)
    rows, columns = (np.arange(step // 2, side, step) + 0.5 for side in scene.pixels.shape[:2])
    labels = scene_labels(scene, scenes, rows, columns, (step, step))
    free = np.flatnonzero(labels == scenes.background_index)
    chosen = np.random.default_rng(int(digest, 16)).choice(free, min(number, len(free)), replace=False)
    chosen = np.sort(chosen)
    middles = np.stack([rows[chosen // len(columns)], columns[chosen % len(columns)]], axis=1)
    classes = np.concatenate([objects.classes, np.full(len(chosen), scenes.background_index)])
    return _Places.about(np.concatenate([objects.centres, middles]), classes, size)


def _at_marks(scene: Scene, scenes: Scenes, digest: str, size: tuple[int, int], count: int) -> _Places:
    """Up to `count` crops at places of each mark's cells, of a grid of pixels."""
    rng = np.random.default_rng([int(digest, 16), 1])
    middles, labels = [np.zeros((0, 2))], [np.zeros(0, np.int32)]
    reaches = np.ceil(scene.scanned_marks.reaches(scenes.scanned_tolerance(scene)))
    for index, (centre, reach) in enumerate(zip(scene.scanned_marks.centres, reaches, strict=True)):
        rows, columns = (np.floor(at) + np.arange(-far, far + 1) + 0.5 for at, far in zip(centre, reach, strict=True))
        alone = replace(scene, marks=scene.marks.at(np.array([index])))
        is_own = scene_labels(scene, scenes, rows, columns, (1, 1)) == scene.marks.classes[index]
        places = np.argwhere(is_own & marked_cells(alone, scenes, rows, columns, (1, 1)))
        places = places[rng.permutation(len(places))[:count]]
        middles.append(np.stack([rows[places[:, 0]], columns[places[:, 1]]], axis=1))
        labels.append(np.full(len(places), scene.marks.classes[index]))
    return _Places.about(np.concatenate(middles), np.concatenate(labels), size)


def _name(scene: Scene, corner: np.ndarray, size: tuple[int, int]) -> str:
    """What a crop is called: its image, and its centre in pixels of that."""
    y, x = (corner + np.divide(size, 2)) / scene.scale
    return f"{scene.name} at ({x:.1f}, {y:.1f})"


def _digest(of_image: str, corner: np.ndarray) -> int:
    """A number that two crops share only where they are one place of images with one content."""
    content = hashlib.blake2b(f"{of_image} {corner.tolist()}".encode(), digest_size=8)
    return int.from_bytes(content.digest(), "big")
