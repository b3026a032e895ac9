"""Images as a model takes them: their channels, and samples of the type that it was trained on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.pictures import Choice, Resized, Wanted, check_array, level_for, open_picture, read_picture, release

if TYPE_CHECKING:
    from zoo.network.network import Network


class Pixels:
    """An image (H, W, C) that is read region by region: `pixels[rows, columns]` -> (h, w, C)."""

    def __init__(
        self,
        source: Any,
        mirrored: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
        file: str | Path | None = None,
    ):
        """Read `source`, (H, W, C) or (H, W), as if mirrored at its border.

        Args:
            source: an array, or what is read by slices like one.
            mirrored: rows and columns added, ((top, bottom), (left, right)); the outermost ones are not repeated.
            file: where `source` is read from, if it is known.
        """
        self.file = file
        self.source, self.dtype, self.mirrored = source, np.dtype(source.dtype), mirrored
        pairs = zip(source.shape, mirrored, strict=False)
        self._rows, self._columns = (np.pad(np.arange(side), added, "reflect") for side, added in pairs)
        self.shape = (len(self._rows), len(self._columns), source.shape[2] if len(source.shape) == 3 else 1)

    @property
    def name(self) -> str:
        """What begins what is said of the image."""
        return "image" if self.file is None else f"image {self.file}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of what was read so far, a line each, without the file's name."""
        return getattr(self.source, "notes", ())

    def mirrored_by(self, added: tuple[tuple[int, int], tuple[int, int]]) -> "Pixels":
        """The same pixels, mirrored at the border by so many rows and columns, ((top, bottom), (left, right))."""
        return Pixels(self.source, added, self.file)

    def read_from(self, region: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """The rows and the columns of the image without its mirrored border that those of a region are."""
        return self._rows[region[0]], self._columns[region[1]]

    @contextmanager
    def resized(self, size: tuple[int, int]) -> Iterator["Pixels"]:
        """This image at another size, resized by regions: of a pyramid, from the nearest finer level."""
        levels = getattr(self.source, "levels", ())
        if tuple(size) == self.shape[:2]:
            yield self
        elif len(levels) < 2:
            yield Pixels(Resized(self, size), file=self.file)
        else:
            with self.source.at_level(level_for(levels, size)) as level:
                yield Pixels(Resized(level, size), file=self.file)

    def __getitem__(self, region: tuple[slice, slice]) -> np.ndarray:
        """Read a region; what is read of a mapped file does not stay in memory."""
        rows, columns = self._rows[region[0]], self._columns[region[1]]
        top, left = rows.min(), columns.min()
        read = np.array(self.source[top : rows.max() + 1, left : columns.max() + 1])
        release(self.source)
        if np.any(self.mirrored):
            read = read[np.ix_(rows - top, columns - left)]
        return read if read.ndim == 3 else read[..., None]


def wanted(network: "Network") -> Wanted:
    """What a model takes: its channels, and samples of the type that it was trained on."""
    return Wanted(network.channels, network.card.dtype)


@contextmanager
def open_pixels(
    network: "Network",
    image: Any,
    choice: Choice = Choice(),  # noqa: B008 - frozen
) -> Iterator[Pixels]:
    """An image for a model, from an array, what is read by slices like one, or a file of which `choice` says which.

    Raises:
        InputError: where it cannot be read by regions, or has other channels or another sample type than the model's
            images; for a model that takes something else than one image.
    """
    if isinstance(image, Pixels):
        yield image
        return
    network.check_one_image()
    if not isinstance(image, str | Path):
        check_array(image, wanted(network))
        yield Pixels(image)
        return
    with open_picture(image, wanted(network), choice) as picture:
        yield Pixels(picture, file=image)


def read_pixels(
    network: "Network",
    path: str | Path,
    choice: Choice = Choice(),  # noqa: B008 - frozen
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read an image file for a model: (H, W, C), and what the user should know about it.

    Raises:
        InputError: where it cannot be read, or has other channels or another sample type than the model's images; for
            a model that takes something else than one image.
    """
    network.check_one_image()
    return read_picture(path, wanted(network), choice)
