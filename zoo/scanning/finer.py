"""Scores on a finer grid than a network's own stride, by any engine; `zoo.network.finer` says where its cells lie."""

from itertools import product

import numpy as np

from zoo.engines.engine import Engine
from zoo.errors import refuse
from zoo.network.finer import finer_geometry, too_small


class FinerRunner:
    """A fully-convolutional network on a grid of `stride` pixels: images (B, h, w, C) -> scores (B, rows, cols, K).

    A network without padding is run once, in fragments. One with padding is run once for every shift of the image
    (shift-and-stitch), each of which sees a border of its own.
    """

    def __init__(self, engine: Engine, stride: int | tuple[int, int]):
        """Take what runs the network, and how many pixels apart the cells shall be.

        Args:
            engine: of a converted model.
            stride: a divisor of the network's stride, or one for rows and one for columns.

        Raises:
            InputError: see `finer_geometry`; and for an engine that does not run fragments, where they are needed.
        """
        self.geometry = finer_geometry(engine.network, stride)
        if not self.geometry.padding_free or self.geometry.stride == self.geometry.total_stride:
            self._run, self._network = engine.run, engine.network
        elif engine.fragments is None:
            received = f"{engine.name!r} with a stride below the model's own, for a model without padding"
            refuse("engine", received, "'keras', with the Keras model")
        else:
            self._run = engine.fragments(self.geometry)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Scores of images (B, h, w, C): (B, rows, cols, K), in the model's precision.

        Raises:
            InputError: where the images are too small for a cell.
        """
        return self._run(images) if self.geometry.padding_free else self._by_shifts(images)

    def _by_shifts(self, images: np.ndarray) -> np.ndarray:
        batch, *size = images.shape[:3]
        grid = self.geometry.grid_shape(*size)
        if not self.geometry.fits(*size):
            raise too_small(self.geometry, size)
        phases = self.geometry.phases
        scores = np.empty((batch, *grid, self._network.units()), self._network.dtype)
        shifts = (list(self.geometry.shifts(side, axis)) for axis, side in enumerate(size))
        for (row, (top, height)), (column, (left, width)) in product(*map(enumerate, shifts)):
            part = self._run(images[:, top : top + height, left : left + width])
            scores[:, row :: phases[0], column :: phases[1]] = part
        return scores
