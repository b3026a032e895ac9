"""Is the converted model the same function, and where it is not, by how much."""

from dataclasses import asdict, dataclass
from itertools import product

import keras
import numpy as np

from zoo.card import card
from zoo.convert.check import error_at_training_size, random_images
from zoo.convert.conversion import convolutionalize
from zoo.convert.copy import in_float32
from zoo.convert.twin import error_of_inner_cells
from zoo.errors import InputError
from zoo.network.geometry import Geometry, geometry
from zoo.network.graph import check_one_image, check_one_output, trace
from zoo.network.outputs import scores_before
from zoo.progress import track
from zoo.scores import relative_error
from zoo.settings import own_settings

# The largest relative difference that counts as the same function in float32.
EXACT = 1e-5
# Cells that are compared with their crops, along each axis of an image; as many in all along a sequence.
_SIDE = 6


@dataclass(frozen=True)
class Verification:
    """What a conversion keeps; errors are max|a - b| / max|b|, of what a softmax or sigmoid at the end is given.

    `max_error_at_training_size`: the single cell against the source model; None for a padding-free twin, which has no
    training size. `max_error_inner_cells`: a twin's cells against those of the padded net whose field is not cut; None
    for what is no twin. `crops`, `crops_max_error`, `crops_mean_error`, `crops_argmax_agreement`: the cells of a
    larger image, each against the source model on the cell's own crop; of a twin, against the twin itself on that
    crop. `padding_free`: whether crops must agree, unless layers repeat rows (`upsampling`) or look at the whole image
    (`global_blocks`). A padded net sees zeros beyond a crop's border where the large image has pixels, so there the
    difference is reported, not judged. The mean error is mean|a - b| / max|b|.
    """

    max_error_at_training_size: float | None
    max_error_inner_cells: float | None
    padding_free: bool
    global_blocks: tuple[str, ...]
    upsampling: tuple[str, ...]
    crops: int
    crops_max_error: float
    crops_mean_error: float
    crops_argmax_agreement: float
    geometry: dict[str, list | None]

    @property
    def bounded(self) -> bool:
        """Whether every cell depends on a part of the image alone."""
        return not self.global_blocks

    @property
    def same_function(self) -> bool:
        """Whether the model is the source's function at the training size; of a twin, at the cells not cut."""
        twin = self.max_error_inner_cells is not None
        error = self.max_error_inner_cells if twin else self.max_error_at_training_size
        return error <= EXACT

    @property
    def same_as_crops(self) -> bool:
        """Whether every cell is the answer to its crop."""
        return self.crops_max_error <= EXACT

    @property
    def cause(self) -> str:
        """Why the cells equal their crops, or why they do not, in one sentence."""
        if self.global_blocks:
            others = f" and {len(self.global_blocks) - 1} more" if len(self.global_blocks) > 1 else ""
            name = self.global_blocks[0]
            return f"layer {name!r}{others} pools over the whole image, so every cell depends on all of it"
        if self.padding_free and self.upsampling and not self.same_as_crops:
            return f"layer {self.upsampling[0]!r} repeats rows: in pairs or more, which a crop may divide otherwise"
        if self.padding_free:
            return "no layer pads, so a cell sees exactly what its crop shows"
        return "padding: at its border a crop sees zeros where the large image has pixels"

    def table(self) -> str:
        """The report for people to read."""
        verdict = "the same function" if self.same_function else "NOT the same function"
        crops = "equal" if self.same_as_crops else "different"
        if self.max_error_inner_cells is None:
            first = ("at the training size", f"relative error {self.max_error_at_training_size:.1e}: {verdict}")
        else:
            first = ("cells not cut by a border", f"relative error {self.max_error_inner_cells:.1e}: {verdict}")
        errors = f"relative error {self.crops_max_error:.1e} at most, {self.crops_mean_error:.1e} on average"
        window, stride, field = (self.geometry[key] for key in ("window", "stride", "receptive_field"))
        rows = [
            first,
            ("against crops", f"{self.crops} cells, {errors}: {crops}"),
            ("same answer as the crop", f"{self.crops_argmax_agreement:.0%} of the cells"),
            ("because", self.cause),
            ("window, stride", f"{_by(window)}, {_by(stride)} pixels"),
            ("receptive field", "the whole image" if None in field else f"{_by(field)} pixels"),
        ]
        return "\n".join(f"{name:<27} {text}" for name, text in rows)

    def to_dict(self) -> dict:
        """The report as JSON holds it."""
        return {**asdict(self), "bounded": self.bounded, "cause": self.cause}


@own_settings()
def verify(
    model: keras.Model, fcn: keras.Model, image: np.ndarray | None = None, progress: bool = False
) -> Verification:
    """Compare a converted model with its source at the training size, and cell by cell with crops.

    A padding-free twin is compared with the padded net's cells whose field is not cut, and with itself on crops. Both
    models compute in float32 at least, whatever their dtype policy is.

    Args:
        model: the source, a classifier; of a twin also the padded net's conversion.
        fcn: its conversion, with pooling over windows.
        image: (h, w, C), at least one window in size; default: noise that gives 6 x 6 cells (36 of a sequence).
        progress: show a bar over the crops, on a terminal.

    Raises:
        InputError: where `fcn` is no conversion of `model` with windows, a model has several outputs or takes
            something else than one image, or the image is smaller than the window.
    """
    graph = trace(model)
    for each in (model, fcn):
        check_one_image(trace(each), axes=(1, 2))
        check_one_output(each)
    if card(fcn).pooling == "global":
        raise InputError(f"model {fcn.name!r}: was converted with pooling='global'; accepted: pooling over windows")
    shape = geometry(fcn)
    is_twin = card(fcn).padding == "valid"
    _check_conversion(model, fcn, shape, is_twin)
    if is_twin:
        trained = card(fcn).image_size
        padded = convolutionalize(model, trained if None in graph.layout.sides(model.inputs[0].shape) else None)
        at_training_size, inner = None, error_of_inner_cells(padded, fcn, trained, cells=2)
    else:
        at_training_size, inner = error_at_training_size(model, fcn, shape.window), None
    given, wanted = _cells_and_crops(fcn if is_twin else model, fcn, shape, image, progress)
    return Verification(
        max_error_at_training_size=at_training_size,
        max_error_inner_cells=inner,
        padding_free=shape.padding_free,
        global_blocks=shape.global_blocks,
        upsampling=shape.upsampling,
        crops=len(given),
        crops_max_error=relative_error(given, wanted),
        crops_mean_error=float(np.abs(given - wanted).mean() / max(np.abs(wanted).max(), np.finfo(np.float32).tiny)),
        crops_argmax_agreement=float((given.argmax(-1) == wanted.argmax(-1)).mean()),
        geometry=shape.to_dict(),
    )


def _check_conversion(model: keras.Model, fcn: keras.Model, shape: Geometry, is_twin: bool) -> None:
    """See that two models take the same images, give the same classes, and one gives a map for the other's size."""
    layout = trace(fcn).layout
    built = trace(model).layout.sides(model.inputs[0].shape)
    ends = [(each.inputs[0].shape[trace(each).layout.channel], _units(each)) for each in (model, fcn)]
    if (
        len(fcn.output_shape) != layout.rank
        or ends[0] != ends[1]
        or not (is_twin or None in built or built == shape.window)
    ):
        raise InputError(
            f"model {fcn.name!r}: is no conversion of {model.name!r}; accepted: what convolutionalize gave"
        )


def _units(model: keras.Model) -> int:
    layout = trace(model).layout
    return model.output_shape[layout.channel if len(model.output_shape) == layout.rank else -1]


def _cells_and_crops(
    model: keras.Model, fcn: keras.Model, shape: Geometry, image: np.ndarray | None, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of cells of a large image, and of `model` on each cell's own crop, (cells, classes) both."""
    graph = trace(fcn)
    layout = graph.layout
    if image is None:
        cells = _SIDE if layout.axes == 2 else _SIDE**2
        size = [side + (cells - 1) * step for side, step in zip(shape.window, shape.stride, strict=True)]
        image = random_images(fcn, graph, 1, shape.fitting(*size))
    else:
        image = np.moveaxis(image, -1, 0)[None] if layout.channels_first else image[None]
    size = layout.sides(image.shape)
    if any(side < least for side, least in zip(size, shape.window, strict=True)):
        raise InputError(f"image: received {size}; accepted: at least the window {shape.window}")
    placed = geometry(fcn, size)
    source, network = (in_float32(each, trace(each)) for each in (model, fcn))
    scores = layout.last(scores_before(network, image)[0])[0]
    boxes = [(cell, placed.cell_box(*cell)) for cell in product(*map(range, scores.shape[:-1]))]
    axes = range(layout.axes)
    inside = [
        (cell, box)
        for cell, box in boxes
        if all(box[axis] >= 0 and box[axis + layout.axes] <= size[axis] for axis in axes)
    ]
    order = np.random.default_rng(0).permutation(len(inside))[: _SIDE**2]
    given, wanted = [], []
    for index in track(order, "crops", len(order)) if progress else order:
        cell, box = inside[index]
        crop = image[layout.at(*(slice(box[axis], box[axis + layout.axes]) for axis in axes))]
        given.append(scores[cell])
        wanted.append(scores_before(source, crop)[0].reshape(-1))
    return np.stack(given), np.stack(wanted)


def _by(sides: list[int]) -> str:
    return " x ".join(map(str, sides))
