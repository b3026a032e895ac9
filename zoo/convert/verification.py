"""Is the converted model the same function, and where it is not, by how much."""

from dataclasses import asdict, dataclass
from itertools import product

import keras
import numpy as np

from zoo.convert.conversion import Conversion, convert
from zoo.convert.copy import in_float32
from zoo.convert.oracle import EXACT, error_at_training_size, random_images
from zoo.convert.twin import error_of_inner_cells
from zoo.errors import InputError, refuse
from zoo.network.geometry import Geometry
from zoo.network.network import Network
from zoo.network.outputs import scores_before
from zoo.progress import track
from zoo.scores import relative_error
from zoo.settings import own_settings

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
    difference is reported, not judged. The mean error is mean|a - b| / max|b|. Of a model with several outputs each
    number is that of the worst.
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
    models compute in float32 at least, whatever their dtype policy is. Every output is compared.

    Args:
        model: the source, a classifier; of a twin also the padded net's conversion.
        fcn: its conversion, with pooling over windows.
        image: (h, w, C), at least one window in size; default: noise that gives 6 x 6 cells (36 of a sequence).
        progress: show a bar over the crops, on a terminal.

    Raises:
        InputError: where `fcn` is no conversion of `model` with windows, a model takes something else than one image,
            or the image is smaller than the window.
    """
    source, converted = Network.of(model), Network.of(fcn)
    for each in (source, converted):
        each.check_one_image((1, 2))
    if converted.card.pooling == "global":
        raise InputError(f"model {fcn.name!r}: was converted with pooling='global'; accepted: pooling over windows")
    _check_conversion(source, converted)
    if converted.card.padding == "valid":
        trained = converted.card.image_size
        padded = convert(Network.of(source, trained if source.built_size is None else None)).network
        checked = Conversion(converted, error_of_inner_cells=error_of_inner_cells(padded, converted, trained))
    else:
        checked = Conversion(converted, error_at_training_size(source, converted, converted.geometry().window))
    return verified(source, checked, image, progress)


def verified(
    source: Network, conversion: Conversion, image: np.ndarray | None = None, progress: bool = False
) -> Verification:
    """`verify` for a conversion that was checked as it was made: it is compared with crops.

    Raises:
        InputError: where the image is smaller than the window.
    """
    converted = conversion.network
    shape, is_twin = converted.geometry(), converted.card.padding == "valid"
    pairs = _cells_and_crops(converted if is_twin else source, converted, shape, image, progress)
    least = np.finfo(np.float32).tiny
    return Verification(
        max_error_at_training_size=conversion.error_at_training_size,
        max_error_inner_cells=conversion.error_of_inner_cells,
        padding_free=shape.padding_free,
        global_blocks=shape.global_blocks,
        upsampling=shape.upsampling,
        crops=len(pairs[0][0]),
        crops_max_error=max(relative_error(given, expected) for given, expected in pairs),
        crops_mean_error=max(
            float(np.abs(given - expected).mean() / max(np.abs(expected).max(), least)) for given, expected in pairs
        ),
        crops_argmax_agreement=min(
            float((given.argmax(-1) == expected.argmax(-1)).mean()) for given, expected in pairs
        ),
        geometry=shape.to_dict(),
    )


def _check_conversion(source: Network, converted: Network) -> None:
    """Check that two models take the same images, give the same classes, and one gives a map for the other's size."""
    ends = [(each.channels, *map(each.units, range(len(each.model.outputs)))) for each in (source, converted)]
    gives_maps = all(len(output.shape) == converted.axes.rank for output in converted.model.outputs)
    is_twin = converted.card.padding == "valid"
    if (
        not gives_maps
        or ends[0] != ends[1]
        or not (is_twin or source.built_size in (None, converted.geometry().window))
    ):
        raise InputError(
            f"model {converted.name!r}: is no conversion of {source.name!r}; accepted: what convolutionalize gave"
        )


def _cells_and_crops(
    source: Network, converted: Network, shape: Geometry, image: np.ndarray | None, progress: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each output: scores of cells of a large image, and of `source` on each cell's crop, (cells, classes) both."""
    axes = converted.axes
    if image is None:
        cells = _SIDE if axes.count == 2 else _SIDE**2
        size = [side + (cells - 1) * step for side, step in zip(shape.window, shape.stride, strict=True)]
        image = random_images(converted, 1, shape.fitting(*size))
    else:
        image = image[None]
    size = axes.sides(image.shape)
    if any(side < least for side, least in zip(size, shape.window, strict=True)):
        refuse("image", f"{size}", f"at least the window {shape.window}")
    grid = converted.geometry(size)
    given = [scores[0] for scores in scores_before(in_float32(converted).graph, image)]
    whole = in_float32(source)
    boxes = [(cell, grid.cell_box(*cell)) for cell in product(*map(range, given[0].shape[:-1]))]
    inside = [
        (cell, box)
        for cell, box in boxes
        if all(box[axis] >= 0 and box[axis + axes.count] <= size[axis] for axis in range(axes.count))
    ]
    order = np.random.default_rng(0).permutation(len(inside))[: _SIDE**2]
    crops: list[list[np.ndarray]] = []
    for index in track(order, "crops", len(order)) if progress else order:
        _, box = inside[index]
        crop = image[axes.at(*(slice(box[axis], box[axis + axes.count]) for axis in range(axes.count)))]
        crops.append([scores.reshape(-1) for scores in scores_before(whole.graph, source.axes.own(crop))])
    chosen = tuple(np.array([inside[index][0] for index in order]).T)
    return [(scores[chosen], np.stack(each)) for scores, each in zip(given, zip(*crops, strict=True), strict=True)]


def _by(sides: list[int]) -> str:
    return " x ".join(map(str, sides))
