"""One pass of a model over an image: tile by tile, into memory or onto the disk."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from zoo.pictures import check_finite
from zoo.progress import track
from zoo.scanning.grid import Grid
from zoo.scanning.pixels import Pixels
from zoo.scanning.store import InMemory, Store
from zoo.scanning.tiles import Tile


@dataclass(frozen=True)
class Scorer:
    """What gives the scores of pixels.

    `run`: pixels (B, h, w, C) -> scores (B, rows, cols, classes). `dtype`: that of both. `check`: takes scores and what
    they are of, and raises an InputError where they are not finite. `progress`: show a bar over the tiles.
    """

    run: Callable[[np.ndarray], np.ndarray]
    classes: int
    dtype: np.dtype
    check: Callable[[np.ndarray, str], np.ndarray]
    progress: bool = False

    def fill(self, store: InMemory | Store, grid: Grid, side: int, image: Pixels, scanned: np.ndarray) -> None:
        """Score, in tiles of `side` pixels, what `store` lacks of a grid, and leave it open.

        Args:
            store: what keeps the scores.
            grid: the grid of `image`.
            side: that of the tiles.
            image: its pixels.
            scanned: the cells that are wanted, (rows, cols) bool; the others are NaN.

        Raises:
            InputError: where pixels or scores are not finite.
            Interrupted: after Ctrl-C, where something is kept.
            OSError: where the scores cannot be written.
        """
        store.open(side, (*grid.shape, self.classes), self.dtype, grid.cells_of(side))
        pixels, tiles = image.extended_by(grid.added, grid.fill), list(enumerate(grid.tiles(side)))
        missing = [(index, tile) for index, tile in tiles if index not in store.done]
        try:
            for index, tile in track(missing, "scanning", len(missing)) if self.progress else missing:
                store.write(index, tile.cells, self._scores(tile, pixels, scanned[tile.cells]))
        except (KeyboardInterrupt, OSError) as error:
            store.stopped(error, len(tiles))

    def _scores(self, tile: Tile, pixels: Pixels, wanted: np.ndarray) -> np.ndarray | float:
        """The scores of a tile's wanted cells, NaN for the others: (rows, cols, classes), or NaN alone for none."""
        if not wanted.any():
            return np.nan
        read = check_finite(pixels[tile.pixels].astype(self.dtype), pixels.name)
        scores = self.run(read[None])[0][tile.inner]
        # The rest of a tile is cheaper computed than cut out.
        scores = scores if wanted.all() else np.where(wanted[..., None], scores, np.nan)
        finite = np.isfinite(scores).all(-1)
        if not (finite | ~wanted).all():
            broken = np.argwhere(wanted & ~finite)[0]
            row, column = (cells.start + at for cells, at in zip(tile.cells, broken, strict=True))
            self.check(scores[*broken], f"cell {row},{column}")
        return scores.astype(self.dtype, copy=False)
