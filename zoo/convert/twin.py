"""The padding-free twin: a padded net with the same weights and no padding, whose cells depend on pixels alone.

Along each axis every tensor of the padded net is a row of cells, numbered as they are there. The twin computes those
whose whole field lies in its image: before a layer it crops what would move it off the positions that it has in the
padded net, and behind it what lets branches meet in one size, whatever the image's size is.
"""

from collections import defaultdict
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from zoo.card import Card, attach, card
from zoo.convert.check import random_images
from zoo.convert.copy import Rebuild, in_float32
from zoo.errors import InputError
from zoo.network.geometry import Geometry, geometry
from zoo.network.graph import Graph, Step, check_one_output, trace
from zoo.network.outputs import scores_before
from zoo.network.positions import Border, Move, Pointwise, Slide, moves
from zoo.network.program import Program, Row, Span, program_of, size_after, span_after
from zoo.scores import relative_error

_TOLERANCE = 1e-4
# Strides by which an image may have to be larger than a field and a stride, because layers crop.
_MOST_STRIDES = 100


def padding_free_twin(model: keras.Model, training_size: tuple[int, ...]) -> keras.Model:
    """The twin of a fully-convolutional model, (B, h, w, C) -> (B, rows, cols, K); see `convolutionalize`.

    Args:
        model: the padded net, converted.
        training_size: (height, width); images of these sizes modulo the total stride align the padded net's strided
            SAME layers as it was trained.

    Raises:
        InputError: where a layer's field is infinite, the model has several outputs, or it upsamples.
        RuntimeError: where the twin differs from the padded net.
    """
    check_one_output(model)
    graph = trace(model)
    placed = reference_geometry(model, training_size)
    if (graph.layout.axes, graph.layout.channels_first) == (1, True):
        raise InputError(f"model {model.name!r}: its sequences have their channels first, which no Keras layer crops")
    if not placed.bounded:
        raise InputError(
            f"model {model.name!r}: layer {placed.global_blocks[0]!r} pools over the whole image, so a cell's field is "
            "infinite and no padding-free twin exists"
        )
    program = program_of(graph, training_size)
    plans = [_plan(program, axis, side) for axis, side in enumerate(placed.image_size)]
    twin = _Twin(graph, plans).run()
    window = tuple(plan.window for plan in plans)
    about = card(model).model_dump() | {"pooling": "window", "window": window, "padding": "valid"}
    attach(twin, Card.model_validate(about | {"image_size": training_size}))
    error = error_of_inner_cells(model, twin, training_size)
    if not error <= _TOLERANCE:
        raise RuntimeError(
            f"twin of {model.name!r} failed its check: relative error {error:.1e} at the cells whose field is not cut; "
            "this is a fault of the converter, please report the model's layers"
        )
    return twin


def reference_geometry(model: keras.Model, training_size: tuple[int, ...], cells: int = 1) -> Geometry:
    """The padded net's geometry on the smallest image, of the training size modulo the stride, with uncut cells.

    At least `cells` of them along each axis; where its field is not finite or layers repeat rows, that of the training
    size.

    Raises:
        InputError: where no image seems to have any.
    """
    bare = geometry(model, training_size)
    if not bare.bounded or bare.upsampling:
        return bare
    size = []
    for axis, side in enumerate(training_size):
        stride, reach = bare.stride[axis], int(bare.receptive_field[axis])
        # Uncut cells begin at least every stride; SAME padding may shift them by up to a stride with the size.
        wanted = reach + cells * stride
        size.append(side + max(-(-(wanted - side) // stride), 0) * stride)
    for _ in range(_MOST_STRIDES):
        placed = geometry(model, tuple(size))
        short = [axis for axis in range(len(size)) if len(_uncut(placed, axis, bare.receptive_field[axis])) < cells]
        if not short:
            return placed
        for axis in short:  # layers that crop leave fewer cells
            size[axis] += bare.stride[axis]
    raise InputError(f"model {model.name!r}: no cell of an image of {size} pixels sees as much as its receptive field")


def error_of_inner_cells(
    padded: keras.Model, twin: keras.Model, training_size: tuple[int, ...], cells: int = 1
) -> float:
    """The largest relative error of a twin against the padded net's cells whose field is not cut, on a random image.

    The image is cut at the top left of the first such cell's field, where the twin's grid begins. The softmax or
    sigmoid at the end is left out on both sides, and both compute in float32 at least.
    """
    graph = trace(padded)
    layout = graph.layout
    placed = reference_geometry(padded, training_size, cells)
    uncut = [_uncut(placed, axis, side) for axis, side in enumerate(card(twin).window)]
    image = random_images(padded, graph, 1, placed.image_size)
    first = tuple(placed.cell_field(*(inner[0] for inner in uncut))[axis] for axis in range(layout.axes))
    wanted = layout.last(scores_before(in_float32(padded, graph), image)[0])
    for axis, inner in enumerate(uncut, start=1):
        wanted = np.take(wanted, inner, axis)
    cut = image[layout.at(*(slice(start, None) for start in first))]
    given = layout.last(scores_before(in_float32(twin, trace(twin)), cut)[0])
    given = given[:, *(slice(0, len(inner)) for inner in uncut)]
    return relative_error(given, wanted)


def _uncut(placed: Geometry, axis: int, window: float) -> list[int]:
    """The rows (or columns) of cells that see as much of the image as the twin's do, along their axis."""
    counts = placed.grid_shape(*placed.image_size)
    if 0 in counts:
        return []
    cell = [count // 2 for count in counts]
    found = []
    for index in range(counts[axis]):
        cell[axis] = index
        seen = placed.cell_field(*cell)
        if seen[axis + len(counts)] - seen[axis] == window:
            found.append(index)
    return found


class _Twin(Rebuild):
    """The graph without padding, each layer's input cropped as the plans of the axes say."""

    def __init__(self, graph: Graph, plans: list["_Plan"]):
        super().__init__(graph, suffix="_valid")
        self.plans = plans
        self.cropped: dict[tuple, keras.KerasTensor] = {}

    def step(self, index: int, step: Step) -> None:
        """Build one step of the graph; layers that only pad or crop are left out."""
        if isinstance(moves(step, self.layout)[0], Border):
            self.tensors[step.outputs[0]] = self.tensors[step.inputs[0]]
            return
        made = self.clone(step, padding="valid") if getattr(step.layer, "padding", "valid") != "valid" else None
        inputs = {key: self._crop(step, place) for place, key in enumerate(step.inputs)}
        self.call(step, made or self.clone(step), inputs)

    def _crop(self, step: Step, place: int) -> keras.KerasTensor:
        key = step.inputs[place]
        crops = tuple(plan.crops.get((step.outputs[0], place), (0, 0)) for plan in self.plans)
        if not any(map(any, crops)):
            return self.tensors[key]
        if (key, crops) not in self.cropped:
            common = {"name": self.name(step, f"_crop{place + 1}"), "dtype": self.tensors[key].dtype}
            if self.layout.axes == 1:
                layer = layers.Cropping1D(crops[0], **common)
            else:
                layer = layers.Cropping2D(crops, data_format=self.data_format, **common)
            self.cropped[key, crops] = layer(self.tensors[key])
        return self.cropped[key, crops]


@dataclass(frozen=True)
class _Cells:
    """The cells of a tensor along one axis of the twin: the number of the first, their stride, and a cell's reach.

    The numbers are the padded net's. An image of n rows has (n - reach) // stride + 1 of these cells.
    """

    first: int
    stride: int
    reach: int

    def cropped(self, before: int, behind: int) -> "_Cells":
        """Without some cells before and behind."""
        return _Cells(self.first + before, self.stride, self.reach + (before + behind) * self.stride)


@dataclass(frozen=True)
class _Plan:
    """Along one axis, for each step's output and input: cells to crop (before, behind); and the twin's window."""

    crops: dict[tuple[int, int], tuple[int, int]]
    window: int


def _plan(program: Program, axis: int, size: int) -> _Plan:
    """The crops that keep every layer on the positions that it has in the padded net on `size` rows."""
    sizes = program.values(size, size_after, axis)
    makers = {row.output: row for row in program.rows}
    start = program.fold(Span(0, 1, 1, size), span_after, axis).start
    behind: dict[tuple[int, int], int] = defaultdict(int)

    def crop_by(pixels: int, key: int, cells: dict[int, _Cells]) -> None:
        """Have a tensor's cells end `pixels` earlier, by a crop at the nearest layer whose input's stride allows it."""
        row = makers[key]
        if isinstance(row.moves[axis], Slide) and pixels % cells[row.inputs[0]].stride == 0:
            behind[key, 0] += pixels // cells[row.inputs[0]].stride
            return
        for source in row.inputs:
            crop_by(pixels, source, cells)

    # Cropping one branch may lengthen another that shares a part with it, so the walk is made until all of them meet.
    for _ in range(len(program.rows) + 1):
        cells, crops = {program.image: _Cells(start, 1, 1)}, {}
        for row in program.rows:
            sources = [cells[key] for key in row.inputs]
            fits = _crops(
                row, axis, sources, sizes[row.inputs[0]], [behind[row.output, at] for at in range(len(sources))]
            )
            ready = [source.cropped(*crop) for source, crop in zip(sources, fits, strict=True)]
            reach = max(cell.reach for cell in ready)
            late = next((at for at, cell in enumerate(ready) if (reach - cell.reach) % cell.stride), None)
            if late is not None:
                crop_by(reach - ready[late].reach, row.inputs[late], cells)
                break
            fits = [
                (before, after + (reach - cell.reach) // cell.stride)
                for (before, after), cell in zip(fits, ready, strict=True)
            ]
            cells[row.output] = _after(row.moves[axis], ready[0].first, ready[0].stride, reach, sizes[row.inputs[0]])
            crops |= {(row.output, at): crop for at, crop in enumerate(fits) if any(crop)}
        else:
            return _Plan(crops, cells[program.grid].reach)
    raise InputError("padding-free twin: branches of this model meet in no common size")


def _crops(row: Row, axis: int, sources: list[_Cells], size: int, behind: list[int]) -> list[tuple[int, int]]:
    """How many cells of each input come before the first that the layer takes, and the crops asked for behind."""
    move = row.moves[axis]
    match move:
        case Pointwise():
            if len({source.stride for source in sources}) > 1:
                strides = ", ".join(str(source.stride) for source in sources)
                raise InputError(f"layer {row.path!r}: merges maps of strides {strides}; accepted: one stride")
            first = max(source.first for source in sources)
            return [(first - source.first, crop) for source, crop in zip(sources, behind, strict=True)]
        case Slide():
            pad = move.padding(size)[0]
            return [((-sources[0].first - pad) % move.stride, behind[0])]
        case Border():
            return [(0, behind[0])]
    raise InputError(
        f"layer {row.path!r}: repeats rows; accepted for a padding-free twin: convolutions, pooling, merges"
    )


def _after(move: Move, first: int, stride: int, reach: int, size: int) -> _Cells:
    """The cells that a move makes of those from `first` on."""
    match move:
        case Slide():
            number = (first + move.padding(size)[0]) // move.stride
            return _Cells(number, stride * move.stride, reach + (move.extent - 1) * stride)
        case Border():
            return _Cells(first + move.before, stride, reach)
    return _Cells(first, stride, reach)
