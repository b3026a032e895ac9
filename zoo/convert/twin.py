"""The padding-free twin: a padded net with the same weights and no padding, whose cells depend on pixels alone.

Along each axis every tensor of the padded net is a row of cells, numbered as they are there. The twin computes those
whose whole field lies in its image: before a layer it crops what would move it off the positions that it has in the
padded net, and after it what lets branches meet in one size, whatever the image's size is.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from zoo.card import Card, attach
from zoo.convert.copy import Copy, in_float32
from zoo.convert.oracle import demand_equality, random_images
from zoo.errors import InputError
from zoo.network.geometry import Geometry
from zoo.network.graph import Step
from zoo.network.marks import mark_name
from zoo.network.moves import Border, Slide
from zoo.network.network import Network
from zoo.network.outputs import scores_before
from zoo.network.positions import Cells
from zoo.network.program import Instruction, Ints, Program
from zoo.scores import relative_error

# Strides by which an image may have to be larger than a field and a stride, because layers crop.
_MOST_STRIDES = 100


def padding_free_twin(padded: Network, training_size: Ints) -> tuple[Network, float]:
    """The twin of a fully-convolutional network, and its relative error at inner cells; see `convolutionalize`.

    Args:
        padded: the padded net, converted.
        training_size: (height, width); images of these sizes modulo the total stride align the padded net's strided
            SAME layers as it was trained.

    Raises:
        InputError: where a layer's field is infinite, the model has several outputs, or it upsamples.
        RuntimeError: where the twin differs from the padded net.
    """
    padded.check_one_output()
    trained = reference_geometry(padded, training_size)
    if not trained.bounded:
        raise InputError(
            f"model {padded.name!r}: layer {trained.global_blocks[0]!r} pools over the whole image, so a cell's field "
            "is infinite and no padding-free twin exists"
        )
    plans = [_Crops(padded.program, axis, side).plan() for axis, side in enumerate(trained.known_size)]
    window = tuple(plan.window for plan in plans)
    twins = {"pooling": "window", "window": window, "padding": "valid", "image_size": training_size}
    about = Card.model_validate(padded.card.model_dump() | twins)
    twin = Network.of(attach(_Twin(padded, plans, mark_name(about)).run(), about))
    error = error_of_inner_cells(padded, twin, training_size)
    demand_equality(padded, error, "the cells whose field is not cut")
    return twin, error


def reference_geometry(padded: Network, training_size: Ints, cells: int = 1) -> Geometry:
    """The padded net's geometry on the smallest image, of the training size modulo the stride, with uncut cells.

    At least `cells` of them along each axis; where its field is not finite or layers repeat rows, that of the training
    size.

    Raises:
        InputError: where no image seems to have any.
    """
    bare = padded.geometry(training_size)
    if not bare.bounded or bare.upsampling:
        return bare
    size = []
    for axis, side in enumerate(training_size):
        stride, reach = bare.stride[axis], bare.field_sides[axis]
        # Uncut cells begin at least every stride; SAME padding may shift them by up to a stride with the size.
        least = reach + cells * stride
        size.append(side + max(-(-(least - side) // stride), 0) * stride)
    for _ in range(_MOST_STRIDES):
        larger = padded.geometry(tuple(size))
        short = [axis for axis in range(len(size)) if len(_uncut(larger, axis, bare.receptive_field[axis])) < cells]
        if not short:
            return larger
        for axis in short:  # layers that crop leave fewer cells
            size[axis] += bare.stride[axis]
    raise InputError(f"model {padded.name!r}: no cell of an image of {size} pixels sees as much as its receptive field")


def error_of_inner_cells(padded: Network, twin: Network, training_size: Ints, cells: int = 2) -> float:
    """The largest relative error of a twin against the padded net's cells whose field is not cut, on a random image.

    The image is cut at the top left of the first such cell's field, where the twin's grid begins. The softmax or
    sigmoid at the end is left out on both sides, and both compute in float32 at least.
    """
    larger, window = reference_geometry(padded, training_size, cells), twin.geometry().window
    uncut = [_uncut(larger, axis, side) for axis, side in enumerate(window)]
    image = random_images(padded, 1, larger.known_size)
    first = larger.cell_field(*(inner[0] for inner in uncut))
    expected = scores_before(in_float32(padded).graph, image)[0]
    for axis, inner in enumerate(uncut, start=1):
        expected = np.take(expected, inner, axis)
    cut = image[padded.axes.at(*(slice(start, None) for start in first[: padded.axes.count]))]
    given = scores_before(in_float32(twin).graph, cut)[0]
    return relative_error(given[(slice(None), *(slice(0, len(inner)) for inner in uncut))], expected)


def _uncut(larger: Geometry, axis: int, window: float) -> list[int]:
    """The rows (or columns) of cells that see as much of the image as the twin's do, along their axis."""
    counts = larger.grid_shape(*larger.known_size)
    if 0 in counts:
        return []
    cell = [count // 2 for count in counts]
    uncut = []
    for index in range(counts[axis]):
        cell[axis] = index
        seen = larger.cell_field(*cell)
        if seen[axis + len(counts)] - seen[axis] == window:
            uncut.append(index)
    return uncut


class _Twin(Copy):
    """The graph without padding, each layer's input cropped as the plans of the axes say."""

    def __init__(self, network: Network, plans: list["_Plan"], mark: str):
        super().__init__(network, suffix="_valid", mark=mark)
        self.plans = plans
        self.cropped: dict[tuple, keras.KerasTensor] = {}

    def step(self, index: int, step: Step) -> None:
        """Build one step of the graph; layers that only pad or crop are left out."""
        if isinstance(self.network.moves(index)[0], Border):
            self.tensors[step.outputs[0]] = self.tensors[step.inputs[0]]
            return
        copy = self.clone(step, padding="valid") if getattr(step.layer, "padding", "valid") != "valid" else None
        inputs = {key: self._crop(step, place) for place, key in enumerate(step.inputs)}
        self.call(step, copy or self.clone(step), inputs)

    def _crop(self, step: Step, place: int) -> keras.KerasTensor:
        key = step.inputs[place]
        crops = tuple(plan.crops.get((step.outputs[0], place), (0, 0)) for plan in self.plans)
        if not any(map(any, crops)):
            return self.tensors[key]
        if (key, crops) not in self.cropped:
            settings = {"name": self.name(step, f"_crop{place + 1}"), "dtype": self.tensors[key].dtype}
            layer = layers.Cropping1D(crops[0], **settings) if len(crops) == 1 else layers.Cropping2D(crops, **settings)
            self.cropped[key, crops] = layer(self.tensors[key])
        return self.cropped[key, crops]


@dataclass(frozen=True)
class _Plan:
    """Along one axis, for each step's output and input: cells to crop (before, after); and the twin's window."""

    crops: dict[tuple[int, int], tuple[int, int]]
    window: int


class _Crops:
    """The crops along one axis that keep every layer on the positions that it has in the padded net.

    A worklist: `at` is the next instruction. Of those before it, each takes cells that meet: after the crops in
    `crops`, all its inputs begin at one cell of the padded net and need images of one size, so that they have equally
    many cells whatever that size is. Where the inputs of an instruction cannot meet by cropping them, since they differ
    by less than a stride, an earlier layer of finer stride is asked to crop (`asked`), which may undo how others met:
    the list goes on from there. Requests only grow, so that the list is walked a bounded number of times or never ends;
    more requests than instructions are taken for the latter.
    """

    def __init__(self, program: Program, axis: int, size: int):
        """Begin with the image of `size` rows."""
        self.program, self.axis = program, axis
        self.sizes = program.sizes(axis, size)
        self.makers = {each.output: index for index, each in enumerate(program.instructions)}
        start = program.spans([size if other == axis else None for other in range(program.axes)])[axis].start
        self.cells = {program.image: Cells(start, 1, 1)}
        self.crops: dict[tuple[int, int], tuple[int, int]] = {}
        self.asked: dict[tuple[int, int], int] = defaultdict(int)

    def plan(self) -> _Plan:
        """Walk the list to its end.

        Raises:
            InputError: naming a layer that no twin has, or where branches meet in no common size.
        """
        instructions, at, requests = self.program.instructions, 0, 0
        while at < len(instructions):
            back = self._meet(instructions[at])
            requests += back is not None
            if requests > len(instructions):
                raise InputError("padding-free twin: branches of this model meet in no common size")
            at = at + 1 if back is None else back
        crops = {place: crop for place, crop in self.crops.items() if any(crop)}
        return _Plan(crops, self.cells[self.program.grid].reach)

    def _meet(self, each: Instruction) -> int | None:
        """Crop what an instruction takes so that it meets; else ask an earlier one, and give its index."""
        move, size = each.moves[self.axis], self.sizes[each.inputs[0]]
        sources = [self.cells[key] for key in each.inputs]
        try:
            skipped = move.skipped(sources, size)
        except InputError as error:
            raise InputError(f"layer {each.path!r}: {error}") from None
        crops = [(before, self.asked[each.output, place]) for place, before in enumerate(skipped)]
        ready = [source.cropped(*crop) for source, crop in zip(sources, crops, strict=True)]
        reach = max(cells.reach for cells in ready)
        for place, cells in enumerate(ready):
            missing = reach - cells.reach
            if missing % cells.stride:
                return min(self._ask(missing, each.inputs[place]))
            self.crops[each.output, place] = (crops[place][0], crops[place][1] + missing // cells.stride)
        self.cells[each.output] = move.cells(Cells(ready[0].first, ready[0].stride, reach), size)
        return None

    def _ask(self, pixels: int, key: int) -> Sequence[int]:
        """Have a tensor's cells end `pixels` earlier, by crops at the nearest layers whose inputs' strides allow it."""
        if key == self.program.image:
            raise InputError("padding-free twin: branches of this model meet in no common size")
        index = self.makers[key]
        each = self.program.instructions[index]
        stride = self.cells[each.inputs[0]].stride
        if isinstance(each.moves[self.axis], Slide) and pixels % stride == 0:
            self.asked[key, 0] += pixels // stride
            return [index]
        return [asked for source in each.inputs for asked in self._ask(pixels, source)]
