"""What is asked of a picture: the channels and samples that a model takes, and which image of a file is meant."""

from dataclasses import dataclass

import numpy as np

from zoo.errors import quoted, refuse


@dataclass(frozen=True)
class Wanted:
    """What a model takes; None takes what there is.

    `channels`: how many of them. `dtype`: the type of the samples that it was trained on. `mask`: a region of
    interest is read, of whose samples only matters whether they are 0: booleans and whole numbers of any size will do.
    `alpha`: alpha is kept, which is else dropped, unless the channels are as many as with it. `indices`: of a palette
    with colours its indices are read, which are else taken for these; a grey one is grey in any case.
    """

    channels: int | None = None
    dtype: np.dtype | str | None = None
    mask: bool = False
    alpha: bool = False
    indices: bool = False


@dataclass(frozen=True)
class Choice:
    """Which image of a file is read, each counted from 0.

    `series`: of an image with several, such as OME-TIFF, slides and bioformats2raw's Zarr. `page`: the plane of that
    series, or, without a series, of the whole file. `level`: of a pyramid; 0 is the full image. Without a series, the
    first one is read that is no label, thumbnail, mask or reduced image.
    """

    page: int | None = None
    series: int | None = None
    level: int = 0

    @property
    def given(self) -> dict[str, int]:
        """What was chosen, by name; empty where nothing was."""
        chosen = {"page": self.page, "series": self.series, "level": self.level or None}
        return {name: value for name, value in chosen.items() if value is not None}


def choose(name: str, what: str, received: int, count: int) -> int:
    """The number of one of `count` things.

    Raises:
        InputError: beginning with `name`, with the range, where there is none of that number.
    """
    if isinstance(received, bool) or not isinstance(received, int) or not 0 <= received < count:
        accepted = f"0 to {count - 1}" if count > 1 else "0"
        refuse(f"{name}: {what}", quoted(received), accepted)
    return received


def check_single(name: str, choice: Choice) -> None:
    """Check that a choice is of what there is, a single image.

    Raises:
        InputError: beginning with `name`, where it is of another.
    """
    for what, number in choice.given.items():
        choose(name, what, number, 1)
