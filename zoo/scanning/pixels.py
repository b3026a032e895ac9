"""Images as a model takes them: their channels, samples of the type that it was trained on, and their borders."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zoo.network.scannable import Scannable
from zoo.pictures import Choice, Wanted, at_size, check_array, open_picture, release

# Rows and columns of pixels that are added to an image: ((top, bottom), (left, right)).
Added = tuple[tuple[int, int], tuple[int, int]]
# What they are: the image, mirrored without repeating its outermost pixels, or raw values, one or one a channel.
Fill = Literal["reflect"] | tuple[float, ...]
# In place of the number of a row or column, where there is none in the image.
_NONE = -1


class Pixels:
    """An image (H, W, C) that is read region by region: `pixels[rows, columns]` -> (h, w, C).

    `given`: the image as it was given, where this is that one at a model's scale (see `zoo.scanning.model_scale`).
    `pixel_size`: the distance of the given image's rows and of its columns in micrometres, None where it is not known.
    """

    def __init__(
        self,
        source: Any,
        added: Added = ((0, 0), (0, 0)),
        fill: Fill = "reflect",
        file: str | Path | None = None,
        given: "Pixels | None" = None,
        scale_notes: tuple[str, ...] = (),
    ):
        """Read `source`, (H, W, C) or (H, W), with rows and columns added at its border.

        Args:
            source: an array, or what is read by slices like one.
            added: how many.
            fill: what they are; an image smaller than its border is mirrored several times.
            file: where `source` is read from, if it is known.
            given: the image at its own size, where `source` is that one at a model's scale.
            scale_notes: what the user should know of that scale.
        """
        self.file, self.given, self.scale_notes = file, given, scale_notes
        self.source, self.added, self.fill = source, added, fill
        self.pixel_size: tuple[float, float] | None = getattr(source, "pixel_size", None)
        self._constant = fill != "reflect" and bool(np.any(added))
        self.dtype = np.result_type(source.dtype, np.float32) if self._constant else np.dtype(source.dtype)
        self._rows, self._columns = (
            np.pad(np.arange(side), each, "constant", constant_values=_NONE)
            if self._constant
            else np.pad(np.arange(side), each, "reflect")
            for side, each in zip(source.shape, added, strict=False)
        )
        self.shape = (len(self._rows), len(self._columns), source.shape[2] if len(source.shape) == 3 else 1)

    @property
    def name(self) -> str:
        """What begins what is said of the image."""
        return "image" if self.file is None else f"image {self.file}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of what was read so far, a line each, without the file's name."""
        return (*getattr(self.source if self.given is None else self.given.source, "notes", ()), *self.scale_notes)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image as it was given."""
        return self.shape[:2] if self.given is None else self.given.shape[:2]

    @property
    def scale(self) -> tuple[float, float]:
        """How many of these pixels, down and across, make one of the given image."""
        height, width = self.image_size
        return self.shape[0] / height, self.shape[1] / width

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each level of its pyramid; empty where it is none."""
        return getattr(self.source, "levels", ())

    def at_level(self, level: int) -> AbstractContextManager[Any]:
        """Open another level of the same pyramid."""
        return self.source.at_level(level)

    def extended_by(self, added: Added, fill: Fill = "reflect") -> "Pixels":
        """The same pixels with rows and columns added at the border."""
        return Pixels(self.source, added, fill, self.file)

    def read_from(self, region: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """The rows and the columns of the image that those of a region are; -1 for those that are none of its."""
        return self._rows[region[0]], self._columns[region[1]]

    @contextmanager
    def resized(self, size: tuple[int, int]) -> Iterator["Pixels"]:
        """The given image at another size, resized by regions: of a pyramid, from the nearest finer level."""
        given = self if self.given is None else self.given
        with at_size(given, size) as pixels:
            yield given if pixels is given else Pixels(pixels, file=self.file)

    def __getitem__(self, region: tuple[slice, slice]) -> np.ndarray:
        """Read a region; what is read of a mapped file does not stay in memory."""
        rows, columns = self.read_from(region)
        if not self._constant:
            return self._read(rows, columns)
        pixels = np.empty((len(rows), len(columns), self.shape[2]), self.dtype)
        pixels[...] = self.fill
        down, across = np.flatnonzero(rows != _NONE), np.flatnonzero(columns != _NONE)
        if len(down) and len(across):
            pixels[np.ix_(down, across)] = self._read(rows[down], columns[across])
        return pixels

    def _read(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The pixels at some rows and columns of the image, (h, w, C)."""
        top, left = rows.min(), columns.min()
        read = np.array(self.source[top : rows.max() + 1, left : columns.max() + 1])
        release(self.source)
        if np.any(self.added):
            read = read[np.ix_(rows - top, columns - left)]
        return read if read.ndim == 3 else read[..., None]


def wanted(network: Scannable) -> Wanted:
    """What a model takes: its channels, and samples of the type that it was trained on."""
    return Wanted(network.channels, network.card.dtype)


@contextmanager
def open_pixels(
    network: Scannable,
    image: Any,
    choice: Choice = Choice(),  # noqa: B008 - frozen
) -> Iterator[Pixels]:
    """An image for a model, from an array, what is read by slices like one, or a file of which `choice` says which.

    Raises:
        InputError: where it cannot be read by regions, does not offer the choice, or has other channels or another
            sample type than the model's images; for a model that takes something else than one image.
    """
    if isinstance(image, Pixels):
        yield image
        return
    network.check_one_image()
    if not isinstance(image, str | Path):
        check_array(image, wanted(network), choice=choice)
        yield Pixels(image)
        return
    with open_picture(image, wanted(network), choice) as picture:
        yield Pixels(picture, file=image)
