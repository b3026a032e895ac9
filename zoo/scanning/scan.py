"""A large image to a ScoreMap, whole or in tiles, with the same answer."""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.convert.conversion import convolutionalize
from zoo.errors import refuse
from zoo.network.network import Network, geometry
from zoo.pictures import Choice, open_mask
from zoo.scanning.engines import Engine as EngineName
from zoo.scanning.engines import Precision, check_scores, make_engine
from zoo.scanning.finer import FinerRunner
from zoo.scanning.grid import Grid, check_fit
from zoo.scanning.keys import RULE, image_key, model_key
from zoo.scanning.masks import cells_inside, check_some
from zoo.scanning.memory import available, check_tile, choose_tile
from zoo.scanning.merging import Merge, merged_outputs
from zoo.scanning.options import BorderRule, Options
from zoo.scanning.passes import Scorer
from zoo.scanning.pixels import Pixels, open_pixels
from zoo.scanning.scales import ScalePart, at_scale, check_room, merger, scaled_sizes, widest_windows
from zoo.scanning.score_map import ScoreMap
from zoo.scanning.store import InMemory, Store
from zoo.settings import own_settings

# Numbers of scores that are merged at a time, of all scales together.
_MERGED_AT_ONCE = 2**22


@own_settings()
def scan(
    fcn: keras.Model,
    image: np.ndarray | str | Path,
    tile: int | None = None,
    memory: int | str | None = None,
    stride: int | tuple[int, int] | None = None,
    scales: Sequence[float] | None = None,
    merge: Merge = "average-probabilities",
    border: BorderRule = "none",
    mask: np.ndarray | str | Path | None = None,
    output: str | Path | None = None,
    engine: EngineName = "keras",
    precision: Precision | None = None,
    progress: bool = False,
    choice: Choice = Choice(),  # noqa: B008 - frozen
    overwrite: bool = False,
) -> ScoreMap:
    """Slide a model over a large image in one pass: (H, W, C) -> scores (rows, cols, classes).

    Pixels and scores are float32, or float64 for a model that computes in it.

    Args:
        fcn: a converted model; a classifier is converted first.
        image: an array (H, W) or (H, W, C), anything with a shape that is read by slices, or a file. Values are those
            that the model was trained on: raw pixels, of the same type or as floats.
        tile: side in pixels of the region that one tile answers for; what its cells see beyond it comes on top. The
            scores do not depend on it. Default: the largest that the memory allows, up to 2,048.
        memory: what the process may hold at its peak, in bytes or as "2GiB"; instead of `tile`. Default: a tile may
            take 1 GiB on top of what the process holds.
        stride: pixels between neighbouring cells, any divisor of the model's stride, or one for rows and one for
            columns; 1 gives a cell at every pixel (see `zoo.scanning.finer`). Default: the model's own.
        scales: scan the image at each of these scales, such as [0.7, 1, 1.4], which finds things of other sizes, and
            merge the maps on the grid of the image itself. At scale s a cell looks at a window of 1/s times the
            model's; a scale counts for the cells of which one lies in the image, to half a stride of its grid, and
            cells that no scale counts for are not scanned (see `zoo.scanning.scales`).
        merge: how the scores of a cell at several scales become one; those of `zoo.scanning.answers.answer`. The scores
            are probabilities then where its name says so, and logits else.
        border: what becomes of pixels that no window covers: "none" leaves the grid as it is, "reflect" mirrors the
            image, "shift" adds a last row and column of windows flush with the border (see
            `zoo.scanning.grid.Grid.of`).
        mask: a region of interest, (H, W), true inside, or an image file. A cell is scanned where any pixel of its
            window is inside (with `scales`: of its `ScoreMap.cell_box`). Tiles without such a cell are skipped; the
            scores of cells that were not scanned are NaN, and `ScoreMap.scanned` says which those are.
        output: a new `.npy` file or `.zarr` folder (chunks are tiles) for the scores, which are then read from there.
            A scan that was stopped goes on where it was when it is called again.
        engine: "keras" or "openvino", which has an extra of its own (see `zoo.scanning.engines.make_engine`).
        precision: what OpenVINO computes in: "float32", or "bfloat16" where the processor has it.
        progress: show a bar over the tiles, on a terminal.
        choice: which image of a file with several, such as `zoo.Choice(series=1, level=2)`.
        overwrite: replace what is at the output, where that is not the same scan's; never the image or the mask.

    Warns:
        UserWarning: what the reader has to say of the image and the mask, such as which of several images was read.

    Raises:
        InputError: where the image has other channels or samples than the model's images, values that are not finite,
            or no window fits; a tile is smaller than the stride, or tiles are asked of a model whose cells depend on
            the whole image; the stride is no divisor, or none for this engine; a scale is no number above 0, or the
            image is too small or too large at it; the mask or the scales leave no cell to scan; the engine or its
            precision is not there; the memory does not suffice; the output is the image or the mask, or holds something
            else than the same scan; the scores are not finite; or the model gives no map: several outputs, or one
            answer for an image of any size.
        Interrupted: after Ctrl-C, where there is an output.
        OSError: where the output cannot be written; what is there is kept.
    """
    options = Options(tile, memory, stride, scales, merge, border, engine, precision, choice)
    score_map = Scanner(fcn, options, progress)(image, mask, output, overwrite)
    for note in score_map.notes:
        warnings.warn(f"{image if isinstance(image, str | Path) else 'image'} {note}", stacklevel=2)
    return score_map


class Scanner:
    """A model made ready to scan many images, each as `scan` does: called with image, mask and output."""

    def __init__(self, fcn: keras.Model, options: Options = Options(), progress: bool = False):  # noqa: B008 - frozen
        """Take the model, and what is the same for all images.

        Raises:
            InputError: for a model that cannot be converted, or that gives several outputs.
        """
        Network.of(fcn).check_one_output()
        self.fcn, self.options, self.progress = convolutionalize(fcn), options, progress

    def __call__(
        self,
        image: np.ndarray | str | Path,
        mask: np.ndarray | str | Path | None = None,
        output: str | Path | None = None,
        overwrite: bool = False,
        settle: bool = True,
    ) -> ScoreMap:
        """Scan one image; see `scan`.

        Without `settle` the output's journal stays, by which the same call finds the whole map, until the caller has
        done what is left to do with it (see `zoo.scanning.store.Store`).
        """
        store, scales = InMemory() if output is None else Store(output, overwrite), self.options.scales
        with ExitStack() as opened:
            source = opened.enter_context(open_pixels(self.fcn, image, self.options.choice))
            inside = None if mask is None else opened.enter_context(open_mask(mask, source.shape[:2]))
            grid = self._grid(source.shape[:2])
            parts = self._scale_parts(grid, store)
            starts, window = (grid.starts, grid.geometry.window) if scales is None else widest_windows(grid, scales)
            region = grid.all_cells if inside is None else cells_inside(inside, starts, window)
            scanned = region & np.logical_or.reduce([each.match.covers for each in parts]) if parts else region
            check_some(scanned, region.any(), mask, scales)
            if output is not None:
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
        outputs = Network.of(self.fcn).outputs_are[0]
        return ScoreMap(
            scores,
            grid.geometry,
            Network.of(self.fcn).class_names,
            grid.image_size,
            merged_outputs(outputs, self.options.merge) if parts else outputs,
            self.options.border,
            starts,
            made_from=store.made_from,
            other_function=grid.other_function,
            scanned=scanned,
            window=window,
            scales=scales,
            notes=(*source.notes, *(f"(the mask) {note}" for note in getattr(inside, "notes", ()))),
        )

    def made_from(self, image: Any, mask: Any = None) -> dict[str, Any]:
        """What a scan's scores depend on, and how it is cut, as JSON holds it."""
        return {
            "model": self._model_key,
            "image": image_key(image),
            "mask": None if mask is None else image_key(mask),
            **self.options.to_dict(),
            **(RULE if mask is not None or self.options.scales is not None else {}),
        }

    @cached_property
    def _model_key(self) -> str:
        return model_key(self.fcn)

    @cached_property
    def _scorer(self) -> Scorer:
        """What gives the scores of tiles."""
        name, precision = self.options.engine, self.options.precision
        run = make_engine(self.fcn, name, precision)
        if self.options.stride is not None:
            run = FinerRunner(self.fcn, self.options.stride, run)
            if name != "keras" and run.geometry.padding_free:
                refuse("engine", f"{name!r} with a stride, for a model without padding", "'keras'")
        check = partial(check_scores, model=self.fcn, engine=name, precision=precision)
        return Scorer(run, self.fcn.output_shape[-1], Network.of(self.fcn).dtype, check, self.progress)

    @property
    def _bytes_a_cell(self) -> int:
        return self.fcn.output_shape[-1] * Network.of(self.fcn).dtype.itemsize

    def _grid(self, size: tuple[int, int]) -> Grid:
        """The grid of an image of `size`, if it has one and tiles can be cut as asked."""
        check_fit(self.fcn, geometry(self.fcn, size))
        grid = Grid.of(self.fcn, size, self.options.border, self.options.stride)
        check_fit(self.fcn, grid.geometry)
        check_tile(self.options.tile, grid.geometry)
        return grid

    def _side(self, grid: Grid, store: InMemory | Store) -> int:
        """The side of the tiles: that of an unfinished scan, the one asked for, or one that the memory allows."""
        side = store.unfinished() or self.options.tile
        if side is not None:
            return side
        held = int(np.prod(grid.shape)) * self._bytes_a_cell if store.path is None else 0
        return choose_tile(self.fcn, grid, self.options.memory, held)

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
        stores = [store.beside(f"{part.scale:g}", self._part_made_from(store.made_from, part.scale)) for part in parts]
        sides = []
        for part, own in zip(parts, stores, strict=True):
            with at_scale(part.scale):
                sides.append(self._side(part.grid, own))
        scorer, shape = self._scorer, (*grid.shape, self.fcn.output_shape[-1])
        step = max(_MERGED_AT_ONCE // (len(parts) * shape[1] * shape[2]), 1)
        store.open(step, shape, scorer.dtype, (step, shape[1]))
        for part, own, side in zip(parts, stores, sides, strict=True):
            with source.resized(part.grid.image_size) as pixels:
                scorer.fill(own, part.grid, side, pixels, part.needed(wanted))
        maps, matches = [own.read() for own in stores], [part.match for part in parts]
        rows = merger(maps, matches, Network.of(self.fcn).outputs_are[0], self.options.merge)
        for index, first in enumerate(range(0, shape[0], step)):
            strip = slice(first, min(first + step, shape[0]))
            store.write(index, (strip, slice(0, shape[1])), rows(strip, scanned[strip]))
        store.finish()
        for own in stores:
            own.discard()

    def _part_made_from(self, made_from: dict[str, Any] | None, scale: float) -> dict[str, Any] | None:
        if made_from is None:
            return None
        if made_from["mask"] is None:
            # All cells of every scale are scanned then, as version 1 did.
            made_from = {name: value for name, value in made_from.items() if name not in RULE}
        return {**made_from, "scale": scale}
