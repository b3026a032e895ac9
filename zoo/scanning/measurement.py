"""How the influence of pixels on one cell is measured: on any grid that a scan makes."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.engines.engine import check_scores
from zoo.errors import quoted, refuse
from zoo.network.finer import FinerGeometry, finer_geometry
from zoo.network.geometry import Geometry
from zoo.network.positions import Pair, pair
from zoo.pictures import Resized, check_finite
from zoo.scanning.grid import Grid
from zoo.scanning.influence import Box, Influence
from zoo.scanning.merging import merge, merge_weights, merged_outputs
from zoo.scanning.model_scale import at_model_scale, on_image
from zoo.scanning.options import Options
from zoo.scanning.pixels import Pixels, open_pixels
from zoo.scanning.scales import Match, Windows, at_scale, scaled_sizes

if TYPE_CHECKING:
    from zoo.engines.gradients import PixelGradients
    from zoo.network.network import Network


def measure(
    network: "Network",
    gradients: "PixelGradients",
    image: np.ndarray | str | Path | Pixels,
    cell: Pair,
    class_index: int | None = None,
    options: Options = Options(),  # noqa: B008 - frozen
) -> Influence:
    """Measure how much each pixel of an image matters to one cell; see `zoo.large_images.influence`.

    Args:
        network: a converted model's, of one output.
        gradients: those of its scores, at the options' stride.
        image: see `zoo.scan`.
        cell: row and column.
        class_index: the class whose score it is; default: the cell's winner.
        options: those of the scan whose grid it is.

    Raises:
        InputError: where the image does not suit the model, or the grid has no such cell.
    """
    what, outputs = f"cell {cell[0]},{cell[1]}" if len(cell) == 2 else "cell", network.outputs_are[0]
    options = options.for_outputs(outputs)
    with ExitStack() as opened:
        whole = opened.enter_context(open_pixels(network, image, options.choice))
        source = opened.enter_context(at_model_scale(network.card, whole, options.pixel_size))
        grid = Grid.that_fits(network, source.shape[:2], options.border_rule, options.stride)
        _check_cell(grid, source.image_size, cell, options)
        names = network.class_names
        if class_index is not None and class_index not in range(len(names)):
            refuse("class", quoted(class_index), f"0 to {len(names) - 1}")
        views = _views(network, grid, source, cell, options)
        pixels = [check_finite(view.pixels.astype(gradients.dtype), source.name) for view in views]
    given = [gradients.scores(each, view.place) for view, each in zip(views, pixels, strict=True)]
    check_scores(np.stack(given), what, network)
    if options.scales is None:
        (scores,) = given
        chosen = int(scores.argmax()) if class_index is None else class_index
        weights = np.eye(len(scores))[[chosen]]
    else:
        scores = merge(np.stack(given), np.ones(len(given), bool), outputs, options.merging)
        chosen = int(scores.argmax()) if class_index is None else class_index
        before = [gradients.before_activation(each, view.place) for view, each in zip(views, pixels, strict=True)]
        weights = merge_weights(np.stack(before), outputs, options.merging, chosen)
        outputs = merged_outputs(outputs, options.merging)
    parts = []
    for view, each, weight in zip(views, pixels, weights, strict=True):
        gradient = gradients.gradient(each, view.place, weight)
        parts.append(view.on_image(check_scores(gradient, f"{what}: influence", network)))
    values, part = _together(parts)
    windows = Windows.of(grid, source.image_size, options.scales)
    if np.isfinite(windows.sides).all():
        first = [int(begins[index]) for begins, index in zip(windows.starts, cell, strict=True)]
        box = _box(first, [begin + int(side) for begin, side in zip(first, windows.sides, strict=True)])
    else:
        box = (0, 0, *source.image_size)
    fields = [view.receptive_field for view in views]
    known = [field for field in fields if field is not None]
    return Influence(
        cell=pair(cell),
        class_index=chosen,
        values=np.abs(values).sum(-1),
        part=part,
        scores=scores,
        window=box,
        field=_around(view.field for view in views),
        receptive_field=_around(known) if len(known) == len(fields) else None,
        grid_shape=grid.shape,
        stride=on_image(grid.geometry.stride, source.scale),
        class_names=names,
        outputs=outputs,
        notes=source.scale_notes,
    )


@dataclass(frozen=True)
class _View:
    """A cell of the grid of one scale: what it reads, and where that lies in the given image.

    `source`: the image at that scale. `resized`: the filter that made it of the given one; None at that one's size.
    """

    network: "Network"
    grid: Grid
    cell: Pair
    source: Pixels
    resized: Resized | None = None

    @cached_property
    def _extended(self) -> Pixels:
        return self.source.extended_by(self.grid.added, self.grid.fill)

    @cached_property
    def _tile(self) -> tuple[tuple[slice, slice], Pair]:
        tile = self.grid.tile_of(*self.cell)
        rows, columns = tile.inner
        return tile.pixels, (rows.start, columns.start)

    @property
    def pixels(self) -> np.ndarray:
        """What is run for the cell: (h, w, C)."""
        return self._extended[self._tile[0]]

    @property
    def place(self) -> Pair:
        """The cell's place in the grid of `pixels`."""
        return self._tile[1]

    def on_image(self, gradient: np.ndarray) -> tuple[np.ndarray, Box]:
        """A gradient with respect to `pixels` as one with respect to those of the image, and the box that these are.

        A pixel of the image that was mirrored, or that several pixels of this scale are made of, has their sum; pixels
        that are none of the image's are left out.
        """
        rows, columns = self._extended.read_from(self._tile[0])
        inside = np.ix_(rows >= 0, columns >= 0)
        gradient, rows, columns = gradient[inside], rows[rows >= 0], columns[columns >= 0]
        if not len(rows) or not len(columns):
            return np.zeros((0, 0, gradient.shape[-1])), (0, 0, 0, 0)
        top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        folded = np.zeros((bottom - top, right - left, gradient.shape[-1]))
        np.add.at(folded, (rows[:, None] - top, columns - left), gradient)
        region = slice(int(top), int(bottom)), slice(int(left), int(right))
        if self.resized is not None:
            folded, region = self.resized.spread(folded, region)
        return folded, _box([part.start for part in region], [part.stop for part in region])

    @cached_property
    def _own(self) -> tuple[Geometry, Pair, Pair]:
        """The geometry that the cell is part of, its place there, and how many pixels come before."""
        cut = pair(self.grid.cut(axis, index) for axis, index in enumerate(self.cell))
        if not any(cut):
            return self.grid.geometry, self.cell, cut
        size = pair(side - first for side, first in zip(self.grid.image_size, cut, strict=True))
        geometry = self._geometry_at(size)
        last = [cells - 1 for cells in geometry.grid_shape(*size)]
        cell = pair(end if first else index for end, first, index in zip(last, cut, self.cell, strict=True))
        return geometry, cell, cut

    def _geometry_at(self, size: Pair) -> Geometry:
        geometry = self.grid.geometry
        if isinstance(geometry, FinerGeometry):
            return finer_geometry(self.network, geometry.stride, size)
        return self.network.geometry(size)

    @property
    def field(self) -> Box:
        """The smallest rectangle of the image around all pixels that can influence the cell; of no area if none can."""
        geometry, cell, cut = self._own
        top, left, bottom, right = geometry.cell_field(*cell)
        if top == bottom or left == right:
            return (0, 0, 0, 0)
        rows, columns = (
            lines[lines >= 0]
            for lines in self._extended.read_from(
                (slice(top + cut[0], bottom + cut[0]), slice(left + cut[1], right + cut[1]))
            )
        )
        if not len(rows) or not len(columns):
            return (0, 0, 0, 0)
        box = (int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
        if self.resized is None:
            return box
        height, width = self.resized.source.shape[:2]
        corners = np.clip(self.resized.reach(box), 0, [height, width, height, width]).tolist()
        return _box(corners[:2], corners[2:])

    @property
    def receptive_field(self) -> Box | None:
        """The theoretical field in the image, as if the border were far; None where it is infinite."""
        geometry, cell, cut = self._own
        if not geometry.bounded:
            return None
        plain = self.network.geometry(geometry.known_size)
        first = []
        for axis, corner in enumerate(geometry.cell_box(*cell)[:2]):
            before = plain.first_pixel()[axis] - plain.known_offset[axis]  # where the field begins, from the window on
            first.append(corner + before + cut[axis] - self.grid.added[axis][0])
        box = _box(first, [start + side for start, side in zip(first, geometry.field_sides, strict=True)])
        return box if self.resized is None else self.resized.reach(box)


def _views(network: "Network", grid: Grid, source: Pixels, cell: Pair, options: Options) -> Sequence[_View]:
    """The cell's view at every scale that counts for it."""
    given = source if source.given is None else source.given

    def view(grid: Grid, own: Pair) -> _View:
        resized = None if grid.image_size == given.shape[:2] else Resized(given, grid.image_size)
        return _View(network, grid, own, Pixels(resized) if resized else given, resized)

    if options.scales is None:
        return [view(grid, pair(cell))]
    views = []
    for scale, size in zip(options.scales, scaled_sizes(grid, options.scales), strict=True):
        with at_scale(scale):
            scaled = Grid.that_fits(network, size, options.border_rule, options.stride)
        match = Match.of(grid, scaled)
        if match.covers[*cell]:
            own = pair(int(nearest[index]) for nearest, index in zip(match.nearest, cell, strict=True))
            views.append(view(scaled, own))
    if not views:
        refuse("cell", f"{cell[0]},{cell[1]}, of which no scale has a window in the image", "a cell that is scanned")
    return views


def _together(parts: Sequence[tuple[np.ndarray, Box]]) -> tuple[np.ndarray, Box]:
    """Values of some boxes added up, in the box around them."""
    top, left, bottom, right = whole = _around(box for _, box in parts)
    values = np.zeros((bottom - top, right - left, parts[0][0].shape[-1]))
    for each, box in parts:
        values[box[0] - top : box[2] - top, box[1] - left : box[3] - left] += each
    return values, whole


def _around(boxes: Iterable[Box]) -> Box:
    """The smallest box around some, those of no area left out."""
    corners = np.array([box for box in boxes if box[0] < box[2]])
    if not len(corners):
        return (0, 0, 0, 0)
    return _box(corners[:, :2].min(0).tolist(), corners[:, 2:].max(0).tolist())


def _box(starts: Iterable[int], ends: Iterable[int]) -> Box:
    return (*pair(starts), *pair(ends))


def _check_cell(grid: Grid, image_size: Pair, cell: Pair, options: Options) -> None:
    """Check that the grid has the cell; else say from which size of image on it would."""
    if len(cell) != 2 or not all(isinstance(index, int | np.integer) for index in cell):
        refuse("cell", quoted(cell), "row and column, two whole numbers")
    shape, geometry = grid.shape, grid.geometry
    if all(0 <= index < count for index, count in zip(cell, shape, strict=True)):
        return
    size = " x ".join(map(str, image_size))
    known = [f"{size} pixels give a grid of {shape[0]} x {shape[1]}"]
    is_plain = options.stride is None and options.border_rule == "none" and image_size == grid.image_size
    for axis, (line, side) in enumerate((("row", "height"), ("column", "width"))):
        if is_plain and cell[axis] >= shape[axis]:
            more = geometry.size_for(*(count + (each == axis) for each, count in enumerate(shape)))[axis]
            known.append(f"{line} {shape[axis]} appears at a {side} of {more:,} pixels")
    refuse(
        "cell",
        f"{cell[0]},{cell[1]}",
        f"rows 0 to {shape[0] - 1}, columns 0 to {shape[1] - 1} ({'; '.join(known)})",
    )
