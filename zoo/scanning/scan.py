"""A large image to a ScoreMap, whole or in tiles, with the same answer."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.convert.conversion import convolutionalize
from zoo.errors import InputError, Interrupted
from zoo.network.geometry import Geometry
from zoo.network.network import Network, geometry
from zoo.pictures import Choice, check_finite, open_mask
from zoo.progress import track
from zoo.scanning.answers import Pooling, check_pooling, pooled_outputs
from zoo.scanning.engines import Engine, Precision, Run, check_scores, make_engine
from zoo.scanning.finer import FinerRunner
from zoo.scanning.keys import RULE, image_key, model_key
from zoo.scanning.masks import cells_inside, check_some
from zoo.scanning.memory import available, check_tile, choose_tile, parse_memory
from zoo.scanning.pixels import Pixels, open_pixels
from zoo.scanning.scales import ScaledGrid, check_room, check_scales, merger, scaled_grid, scaled_sizes, widest_windows
from zoo.scanning.score_map import ScoreMap
from zoo.scanning.store import Store
from zoo.scanning.tiles import Border, Layout, lay_out
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
    merge: Pooling = "average-probabilities",
    border: Border = "none",
    mask: np.ndarray | str | Path | None = None,
    output: str | Path | None = None,
    engine: Engine = "keras",
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
            `zoo.scanning.tiles.lay_out`).
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
    scanner = Scanner(fcn, tile, memory, stride, scales, merge, border, engine, precision, progress, choice)
    score_map = scanner(image, mask, output, overwrite)
    for note in score_map.notes:
        warnings.warn(f"{image if isinstance(image, str | Path) else 'image'} {note}", stacklevel=2)
    return score_map


class Scanner:
    """A model made ready to scan many images, each as `scan` does: called with image, mask and output."""

    def __init__(
        self,
        fcn: keras.Model,
        tile: int | None = None,
        memory: int | str | None = None,
        stride: int | tuple[int, int] | None = None,
        scales: Sequence[float] | None = None,
        merge: Pooling = "average-probabilities",
        border: Border = "none",
        engine: Engine = "keras",
        precision: Precision | None = None,
        progress: bool = False,
        choice: Choice = Choice(),  # noqa: B008 - frozen
    ):
        """Take the options of `scan` that are the same for all images.

        Raises:
            InputError: for wrong ones, as far as they are wrong for every image.
        """
        Network.of(fcn).check_one_output()
        check_pooling(merge)
        self.fcn = convolutionalize(fcn)
        self.tile, self.stride, self.border, self.progress = tile, stride, border, progress
        self.memory = None if memory is None else parse_memory(memory)
        self.scales, self.merge = None if scales is None else check_scales(scales), merge
        self.engine, self.precision, self.choice = engine, precision, choice
        self._dtype = Network.of(self.fcn).dtype

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
        store = None if output is None else Store(output, overwrite)
        with ExitStack() as opened:
            source = opened.enter_context(open_pixels(self.fcn, image, self.choice))
            inside = None if mask is None else opened.enter_context(open_mask(mask, source.shape[:2]))
            layout = self._lay_out(source.shape[:2])
            scaled = [] if self.scales is None else self._scaled(layout, store)
            own = layout.starts, layout.geometry.window
            starts, window = own if self.scales is None else widest_windows(layout, self.scales)
            region = _all(layout) if inside is None else cells_inside(inside, starts, window)
            grids = [scaled_grid(layout, each) for each in scaled]
            scanned = region if self.scales is None else region & np.logical_or.reduce([each.covers for each in grids])
            check_some(scanned, region.any(), mask, self.scales)
            about = None if store is None else self.key(source, mask)
            if store is not None:
                read = [each for each in (source.file, mask) if isinstance(each, str | Path)]
                opened.enter_context(store.held(about, read))
            outputs = Network.of(self.fcn).outputs_are[0]
            if self.scales is None:
                run = self._run  # before the tile is chosen: its weights take memory
                side = self._side(layout, store, about)
                scores = self._fill(run, layout, side, source, scanned, store, about)
                scores = scores if store is None else store.finish()
            else:
                scores = self._merged(layout, scaled, grids, source, scanned, region.all(), store, about)
                outputs = pooled_outputs(outputs, self.merge)
            if store is not None and settle:
                store.settle()
        return ScoreMap(
            scores,
            layout.geometry,
            Network.of(self.fcn).class_names,
            layout.image_size,
            outputs,
            self.border,
            starts,
            made_from=about,
            other_function=layout.other_function,
            scanned=scanned,
            window=window,
            scales=self.scales,
            notes=(*source.notes, *(f"(the mask) {note}" for note in getattr(inside, "notes", ()))),
        )

    def key(self, image: Any, mask: Any = None) -> dict[str, Any]:
        """What a scan's scores depend on, and how it is cut, as JSON holds it."""
        return {
            "model": self._model_key,
            "image": image_key(image),
            "mask": None if mask is None else image_key(mask),
            "stride": None if self.stride is None else np.broadcast_to(self.stride, 2).tolist(),
            "scales": None if self.scales is None else list(self.scales),
            "merge": None if self.scales is None else self.merge,
            "border": self.border,
            "engine": self.engine,
            "precision": self.precision,
            "tile": self.tile,
            "memory": self.memory,
            **(RULE if mask is not None or self.scales is not None else {}),
            **self.choice.given,
        }

    @cached_property
    def _model_key(self) -> str:
        return model_key(self.fcn)

    @cached_property
    def _run(self) -> Run:
        """What gives a tile's scores."""
        engine = make_engine(self.fcn, self.engine, self.precision)
        if self.stride is None:
            return engine
        runner = FinerRunner(self.fcn, self.stride, engine)
        if self.engine != "keras" and runner.geometry.padding_free:
            raise InputError(
                f"engine: received {self.engine!r}; accepted with a stride, for a model without padding: 'keras'"
            )
        return runner

    def _lay_out(self, size: tuple[int, int]) -> Layout:
        """The grid of an image of `size`, if it has one and tiles can be cut as asked."""
        check_fit(self.fcn, geometry(self.fcn, size))
        layout = lay_out(self.fcn, size, self.border, self.stride)
        check_fit(self.fcn, layout.geometry)
        check_tile(self.tile, self.memory, layout.geometry)
        return layout

    def _shape(self, layout: Layout) -> tuple[int, int, int]:
        return (*layout.grid_shape, self.fcn.output_shape[-1])

    def _side(self, layout: Layout, store: Store | None, about: dict | None) -> int:
        """The side of the tiles: that of an unfinished scan, the one asked for, or one that the memory allows."""
        side = self.tile if store is None else store.unfinished(about) or self.tile
        if side is not None:
            return side
        held = 0 if store else int(np.prod(self._shape(layout))) * self._dtype.itemsize
        return choose_tile(self.fcn, layout, self.memory, held)

    def _fill(
        self,
        run: Run,
        layout: Layout,
        side: int,
        source: Pixels,
        scanned: np.ndarray,
        store: Store | None,
        about: dict | None,
    ) -> Any:
        """The scores of the `scanned` cells of one image, in `store` if there is one, which is left open."""
        shape = self._shape(layout)
        if store is not None:
            chunks = tuple(max(side // stride, 1) for stride in layout.geometry.stride)
            store.open(about, side, shape, self._dtype, chunks)
        target = np.empty(shape, self._dtype) if store is None else store
        pixels = Pixels(source.source, layout.mirrored, source.file)
        check = partial(check_scores, model=self.fcn, engine=self.engine, precision=self.precision)
        _fill(target, layout, side, pixels, run, scanned, check, self.progress)
        return target if store is None else store.read()

    def _scaled(self, layout: Layout, store: Store | None) -> list[Layout]:
        """The grids of the image at every scale, seen to be possible before anything is laid out or written."""
        sizes = scaled_sizes(layout, self.scales)
        room = available() if store is None else store.room
        if room is not None:
            cell = self.fcn.output_shape[-1] * self._dtype.itemsize
            check_room(layout, [*sizes, layout.image_size], cell, room, None if store is None else store.path)
        found = []
        for scale, size in zip(self.scales, sizes, strict=True):
            try:
                found.append(self._lay_out(size))
            except InputError as error:
                raise InputError(f"scale {scale:g}: {error}") from None
        return found

    def _merged(
        self,
        layout: Layout,
        scaled: Sequence[Layout],
        grids: Sequence[ScaledGrid],
        source: Pixels,
        scanned: np.ndarray,
        is_whole: bool,
        store: Store | None,
        about: dict | None,
    ) -> Any:
        """The scores of the `scanned` cells: of every scale, each in a store of its own, merged on `layout`'s grid.

        `is_whole`: no mask leaves cells out, and all cells of every scale are scanned.
        """
        plans = []
        for scale, found in zip(self.scales, scaled, strict=True):
            own, key = (None, None) if store is None else (store.beside(f"{scale:g}"), {**about, "scale": scale})
            if own is not None and about["mask"] is None:
                # All cells of every scale are scanned then, as version 1 did.
                key = {name: value for name, value in key.items() if name not in RULE}
            try:
                plans.append((found, self._side(found, own, key), own, key))
            except InputError as error:
                raise InputError(f"scale {scale:g}: {error}") from None
        if store is not None and store.is_whole(about):
            return store.finish()
        run, shape = self._run, self._shape(layout)
        step = max(_MERGED_AT_ONCE // (len(plans) * shape[1] * shape[2]), 1)
        if store is not None:
            store.open(about, step, shape, self._dtype, (step, shape[1]))
        maps = []
        for grid, (found, side, own, key) in zip(grids, plans, strict=True):
            needed = _all(found) if is_whole else grid.needed(scanned, found.grid_shape)
            with source.resized(found.image_size) as pixels:
                maps.append(self._fill(run, found, side, pixels, needed, own, key))
        rows = merger(maps, grids, Network.of(self.fcn).outputs_are[0], self.merge)
        target = np.empty(shape, self._dtype) if store is None else store
        for index, first in enumerate(range(0, shape[0], step)):
            wanted = slice(first, min(first + step, shape[0]))
            if store is None:
                target[wanted] = rows(wanted, scanned[wanted])
            else:
                store.write(index, (wanted, slice(0, shape[1])), rows(wanted, scanned[wanted]))
        if store is None:
            return target
        scores = store.finish()
        for each in plans:
            each[2].discard()
        return scores


def _all(layout: Layout) -> np.ndarray:
    """All cells of a grid as scanned, in no memory."""
    return np.broadcast_to(True, layout.grid_shape)


def _fill(
    target: np.ndarray | Store,
    layout: Layout,
    tile: int,
    pixels: Pixels,
    run: Run,
    scanned: np.ndarray,
    check: Callable[[np.ndarray, str], np.ndarray],
    progress: bool,
) -> None:
    """Score the tiles that `target` lacks, one after the other; cells that are not to be scanned are NaN."""
    store = target if isinstance(target, Store) else None
    parts = list(enumerate(layout.tiles(tile)))
    missing = [each for each in parts if store is None or each[0] not in store.done]
    dtype = target.dtype
    try:
        for index, part in track(missing, "scanning", len(missing)) if progress else missing:
            scores, wanted = np.nan, scanned[part.cells]
            if wanted.any():
                scores = run(check_finite(pixels[part.pixels].astype(dtype), pixels.name)[None])[0][part.inner]
                # The rest of a tile is cheaper computed than cut out.
                scores = scores if wanted.all() else np.where(wanted[..., None], scores, np.nan)
                finite = np.isfinite(scores).all(-1)
                if not (finite | ~wanted).all():
                    broken = np.argwhere(wanted & ~finite)[0]
                    row, column = (cells.start + at for cells, at in zip(part.cells, broken, strict=True))
                    check(scores[*broken], f"cell {row},{column}")
                scores = scores.astype(dtype, copy=False)
            if store is None:
                target[part.cells] = scores
            else:
                store.write(index, part.cells, scores)
    except (KeyboardInterrupt, OSError) as error:
        if store is None:
            raise
        kept = f"{len(store.done)} of {len(parts)} tiles are kept, and the same scan goes on from there"
        if isinstance(error, OSError):
            raise OSError(error.errno, f"{error.strerror or error}; {kept}", str(store.path)) from error
        raise Interrupted(f"interrupted; {kept}") from None


def check_fit(fcn: keras.Model, placed: Geometry) -> None:
    """See that at least one window lies in the image, and every layer takes it."""
    height, width = placed.image_size
    window = Network.of(fcn).card.window
    if window is not None and (height < window[0] or width < window[1]):
        accepted = f"at least one window of {window[0]} x {window[1]}"
    elif not placed.fits(height, width):
        least = Network.of(fcn).smallest_image
        accepted = f"sides that every layer fits, from {least[0]} x {least[1]} on" if least else "a larger one"
    else:
        return
    raise InputError(f"image: received {height} x {width} pixels; accepted: {accepted}")
