"""A large image to a ScoreMap, whole or in tiles, with the same answer."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.engines.engine import Engine
from zoo.errors import refuse
from zoo.network.scannable import Scannable
from zoo.objects.cell_classes import CellClasses
from zoo.pictures import open_mask
from zoo.scanning.crop_check import CropCheck, check_crops, needs_check
from zoo.scanning.finer import FinerRunner
from zoo.scanning.grid import Grid
from zoo.scanning.keys import RULE, image_key
from zoo.scanning.masks import cells_inside, check_some
from zoo.scanning.memory import available, check_tile, choose_tile
from zoo.scanning.merging import merged_outputs
from zoo.scanning.model_scale import at_model_scale
from zoo.scanning.options import Options
from zoo.scanning.passes import Scorer
from zoo.scanning.pixels import Pixels, open_pixels
from zoo.scanning.scales import ScalePart, Windows, at_scale, check_room, merger, scaled_sizes
from zoo.scanning.score_map import ScoreMap
from zoo.scanning.store import InMemory, Store

# Numbers of scores that are merged at a time, of all scales together.
_MERGED_AT_ONCE = 2**22


class Scanner:
    """A network made ready to scan many images, each as `zoo.scan` does: called with image, mask and output."""

    def __init__(
        self,
        network: Scannable,
        make_engine: Callable[[], Engine],
        options: Options = Options(),  # noqa: B008 - frozen
        progress: bool = False,
    ):
        """Take what is the same for all images.

        Args:
            network: a converted model's, of one output.
            make_engine: makes what computes its scores, when the first are needed.
            options: those of the scans.
            progress: show a bar over the tiles.
        """
        self.network, self._make_engine, self.progress = network, make_engine, progress
        self.options = options.for_outputs(network.outputs_are[0])
        # Before any work: the background and thresholds of a card may name another model's classes.
        self.cell_classes = CellClasses(network.class_names, network.card.background, network.card.peaks)

    def __call__(
        self,
        image: np.ndarray | str | Path | Pixels,
        mask: np.ndarray | str | Path | None = None,
        output: str | Path | None = None,
        overwrite: bool = False,
        settle: bool = True,
    ) -> ScoreMap:
        """Scan one image; see `zoo.scan`.

        Without `settle` the output's journal stays, by which the same call finds the whole map, until the caller has
        done what is left to do with it (see `zoo.scanning.store.Store`).

        Raises:
            InputError: see `zoo.scan`.
        """
        if overwrite and output is None:
            refuse("overwrite", "True without an output", "False, or an output to replace")
        store, scales = InMemory() if output is None else Store(output, overwrite), self.options.scales
        with ExitStack() as opened:
            given = opened.enter_context(open_pixels(self.network, image, self.options.choice))
            source = opened.enter_context(self.at_scale(given))
            inside = None if mask is None else opened.enter_context(open_mask(mask, source.image_size))
            grid = self._grid(source.shape[:2])
            parts = self._scale_parts(grid, store)
            windows = Windows.of(grid, source.image_size, scales)
            region = grid.all_cells if inside is None else cells_inside(inside, windows.starts, windows.sides)
            scanned = region & np.logical_or.reduce([each.match.covers for each in parts]) if parts else region
            check_some(scanned, bool(region.any()), mask, scales)
            if isinstance(store, Store):
                files = [each for each in (source.file, mask) if isinstance(each, str | Path)]
                opened.enter_context(store.held(self.made_from(source, mask), files))
            if parts:
                self._scan_scales(store, grid, parts, source, scanned, None if region.all() else scanned)
            else:
                scorer = self._scorer  # before the tile is chosen: its weights take memory
                scorer.fill(store, grid, self._side(grid, store), source, scanned)
            scores = store.finish()
            if settle:
                store.settle()
        outputs = self.network.outputs_are[0]
        return ScoreMap(
            scores,
            grid.geometry,
            self.network.class_names,
            source.image_size,
            windows.starts,
            windows.sides,
            scanned,
            merged_outputs(outputs, self.options.merging) if parts else outputs,
            self.options.border_rule,
            made_from=store.made_from,
            other_function=grid.other_function,
            scales=scales,
            notes=(*source.notes, *(f"(the mask) {note}" for note in getattr(inside, "notes", ()))),
            background=self.cell_classes.background,
            peaks=self.cell_classes.peaks,
            scale=source.scale,
            pixel_size=source.pixel_size,
            middles=windows.centres,
        )

    @property
    def counts(self) -> bool:
        """Whether the scores are numbers of objects."""
        return self.network.outputs_are[0] == "counts"

    def at_scale(self, image: Pixels) -> AbstractContextManager[Pixels]:
        """An open image at the scale at which the network sees it; see `zoo.scanning.model_scale.at_model_scale`."""
        return at_model_scale(self.network.card, image, self.options.pixel_size)

    def made_from(self, image: Any, mask: Any = None) -> dict[str, Any]:
        """What a scan's scores depend on, and how it is cut, as JSON holds it."""
        return {
            "model": self._model_key,
            "image": image_key(image),
            "mask": None if mask is None else image_key(mask),
            **self.options.to_dict(),
            **self._card_key,
            **(RULE if mask is not None or self.options.scales is not None else {}),
        }

    @property
    def for_all_images(self) -> dict[str, Any]:
        """What the scores of every image depend on, as JSON holds it."""
        return {"model": self._model_key, **self.options.to_dict()}

    @cached_property
    def _model_key(self) -> str:
        return self.network.key()

    @property
    def _card_key(self) -> dict[str, Any]:
        """What scores depend on of the card, where there is any of it."""
        card = self.network.card
        known: dict[str, Any] = {"trained_at_scale": card.scale, "trained_at_pixel_size": card.pixel_size}
        if self.options.border_rule == "full":
            known["fill"] = list(card.fill) if isinstance(card.fill, tuple) else card.fill
        return {name: value for name, value in known.items() if value is not None}

    def check_crops(self, scores: ScoreMap, pixels: Pixels, count: int, seconds: float) -> CropCheck | None:
        """Compare at most `count` cells of a map with their crops; None where they are equal, or there are no crops.

        `seconds`: how long the scan of `pixels` took; this takes a tenth of that.
        """
        if not count or self.options.scales is not None or not needs_check(scores.geometry):
            return None
        with self.at_scale(pixels) as scanned:
            box = self._grid(scanned.shape[:2]).cell_box
            run, dtype = lambda crop: self._engine(crop), self.network.dtype
            return check_crops(scores, scanned, run, dtype, count, seconds, box=box)

    @cached_property
    def _engine(self) -> Engine:
        return self._make_engine()

    @cached_property
    def _scorer(self) -> Scorer:
        """What gives the scores of tiles."""
        engine, stride = self._engine, self.options.stride
        run = engine if stride is None else FinerRunner(engine, stride)
        return Scorer(run, self.network.units(), self.network.dtype, engine.check, self.progress)

    @property
    def _bytes_a_cell(self) -> int:
        return self.network.units() * self.network.dtype.itemsize

    def _grid(self, size: tuple[int, int]) -> Grid:
        """The grid of an image of `size`, if it has one and tiles can be cut as asked."""
        grid = Grid.that_fits(self.network, size, self.options.border_rule, self.options.stride)
        check_tile(self.options.tile, grid.geometry)
        return grid

    def _side(self, grid: Grid, store: InMemory | Store) -> int:
        """The side of the tiles: that of an unfinished scan, the one asked for, or one that the memory allows."""
        side = store.unfinished() or self.options.tile
        if side is not None:
            return side
        held = int(np.prod(grid.shape)) * self._bytes_a_cell if store.path is None else 0
        return choose_tile(self.network, grid, self.options.budget, held)

    def _scale_parts(self, grid: Grid, store: InMemory | Store) -> list[ScalePart]:
        """The parts of a scan at several scales, seen to be possible before anything is laid out or written."""
        scales = self.options.scales
        if scales is None:
            return []
        sizes = scaled_sizes(grid, scales)
        room = available() if store.path is None else store.room
        if room is not None:
            check_room(grid, [*sizes, grid.image_size], self._bytes_a_cell, room, store.path)
        parts = []
        for scale, size in zip(scales, sizes, strict=True):
            with at_scale(scale):
                parts.append(ScalePart.of(scale, grid, self._grid(size)))
        return parts

    def _scan_scales(
        self,
        store: InMemory | Store,
        grid: Grid,
        parts: Sequence[ScalePart],
        source: Pixels,
        scanned: np.ndarray,
        wanted: np.ndarray | None,
    ) -> None:
        """Score the `scanned` cells: at every scale, each in a store of its own, merged on `grid`.

        `wanted`: the cells whose scores are needed of every scale; None: all of theirs.
        """
        if store.is_whole():
            return
        stores = [store.at_scale(part.scale) for part in parts]
        sides = []
        for part, own in zip(parts, stores, strict=True):
            with at_scale(part.scale):
                sides.append(self._side(part.grid, own))
        scorer, shape = self._scorer, (*grid.shape, self.network.units())
        step = max(_MERGED_AT_ONCE // (len(parts) * shape[1] * shape[2]), 1)
        store.open(step, shape, scorer.dtype, (step, shape[1]))
        for part, own, side in zip(parts, stores, sides, strict=True):
            with source.resized(part.grid.image_size) as pixels:
                scorer.fill(own, part.grid, side, pixels, part.needed(wanted))
        maps, matches = [own.read() for own in stores], [part.match for part in parts]
        rows = merger(maps, matches, self.network.outputs_are[0], self.options.merging)
        for index, first in enumerate(range(0, shape[0], step)):
            strip = slice(first, min(first + step, shape[0]))
            store.write(index, (strip, slice(0, shape[1])), rows(strip, scanned[strip]))
        store.finish()
        for own in stores:
            own.discard()
