"""What a file says of one image."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.errors import InputError
from zoo.pictures.tables import cut


@dataclass(frozen=True)
class Written:
    """The n objects of an image, as a file has them.

    Coordinates are continuous, in pixels of the image: the centre of the first pixel is (0.5, 0.5).

    `boxes`: (n, 4), top, left, bottom, right; the sides of a point meet. `are_points`: (n,) bool. `names`: the class of
    each one; "" where the file does not say. `image_size`: (height, width) of the image, where the file states it.
    `are_crowds`: (n,) bool, which of them are several in one, as COCO has them.
    """

    boxes: np.ndarray
    are_points: np.ndarray
    names: tuple[str, ...]
    image_size: tuple[int, int] | None
    are_crowds: np.ndarray

    @classmethod
    def of(
        cls,
        boxes: Sequence,
        names: Sequence[str],
        are_points: Sequence[bool] = (),
        size: tuple[int, int] | None = None,
        are_crowds: Sequence[bool] = (),
    ) -> "Written":
        """Objects from lists of boxes and names; none is a point, or a crowd, where these lists are empty."""
        points, crowds = (
            np.array(each, bool) if len(each) else np.zeros(len(names), bool) for each in (are_points, are_crowds)
        )
        return cls(np.array(boxes, np.float64).reshape(-1, 4), points, tuple(names), size, crowds)

    def __len__(self) -> int:
        """How many objects."""
        return len(self.names)


@contextmanager
def reading(path: Path) -> Iterator[str]:
    """What reading a file of labels raises as one line that begins with the file's name, which is given.

    Raises:
        InputError: where it cannot be read, is broken, or holds what is refused.
    """
    name = f"labels {path}"
    try:
        yield name
    except InputError as error:
        raise InputError(text if (text := str(error)).startswith(name) else f"{name}: {text}") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: broken ({cut(str(error))})") from None
