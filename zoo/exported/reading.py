"""An exported file as a model: what it carries, and its scores, by its own runtime and without Keras."""

from pathlib import Path

import numpy as np

from zoo.errors import InputError, refuse
from zoo.exported.alone import Run
from zoo.exported.carried import Carried
from zoo.exported.format import Format
from zoo.exported.formats import FORMATS


class Exported:
    """A file of `zoo export`, open in its runtime; made by `opened`.

    `carried`: what travels in it.
    """

    def __init__(self, carried: Carried, run: Run):
        """Use `opened`."""
        self.carried, self._run = carried, run

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Every output by its name, for a batch of images of the type that the file takes.

        Raises:
            InputError: for another type: nothing is cast.
        """
        wanted = self.carried.image.dtype
        if images.dtype != wanted:
            refuse(f"model {self.carried.model!r}", f"images of {images.dtype}", wanted)
        return self._run(images)


def format_at(path: Path) -> Format | None:
    """The format whose files are called as `path` is; None where it is no exported file's name."""
    return next((each for each in FORMATS.values() if each.holds(path)), None)


def opened(path: str | Path) -> Exported:
    """Open an exported file in its runtime, in the precision that it was exported for.

    Raises:
        InputError: where it is no file of `zoo export`, or of a newer version's; where its runtime is not installed, or
            this processor would not compute it as it was measured.
    """
    path = Path(path)
    if (format := format_at(path)) is None:
        endings = ", ".join(each.ending for each in FORMATS.values() if each.ending)
        accepted = f"a folder of saved_model or web, or a file that ends in {endings}"
        raise InputError(f"exported file {str(path)!r}: accepted: {accepted}")
    carried = format.carried(path)
    carried.check_processor()
    return Exported(carried, format.opened(path, carried.precision))
