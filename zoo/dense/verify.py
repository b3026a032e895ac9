"""Is a converted model the same function, and where it is not, by how much."""

from dataclasses import asdict, dataclass
from itertools import product

import keras
import numpy as np

from zoo.dense.compare import relative_error
from zoo.dense.convert import error_at_training_size
from zoo.dense.geometry import geometry
from zoo.dense.outputs import scores_before
from zoo.errors import InputError
from zoo.graph import check_one_image, check_one_output, trace
from zoo.saving import card

# The largest relative difference that counts as the same function in float32.
EXACT = 1e-5
# Cells along each axis that are compared with their crops.
_SIDE = 6


@dataclass(frozen=True)
class Verification:
    """What a conversion keeps; errors are max|a - b| / max|b|, of what a softmax or sigmoid at the end is given.

    `max_error_at_training_size`: the single cell against the source model. `crops`, `crops_max_error`,
    `crops_argmax_agreement`: the cells of a larger image, each against the source model on the cell's own crop.
    `padding_free`: whether crops must agree. A padded net sees zeros beyond a crop's border where the large image has
    pixels, so there the difference is reported, not judged.
    """

    max_error_at_training_size: float
    padding_free: bool
    bounded: bool
    crops: int
    crops_max_error: float
    crops_argmax_agreement: float
    geometry: dict[str, list | None]

    @property
    def same_at_training_size(self) -> bool:
        """Whether the model is the source's function at the training size."""
        return self.max_error_at_training_size <= EXACT

    @property
    def same_as_crops(self) -> bool:
        """Whether every cell is the source's answer to its crop."""
        return self.crops_max_error <= EXACT

    @property
    def cause(self) -> str:
        """Why the cells equal their crops, or why they do not, in one sentence."""
        if not self.bounded:
            return "a block inside pools over the whole image, so every cell depends on all of it"
        if self.padding_free:
            return "no layer pads, so a cell sees exactly what its crop shows"
        return "padding: at its border a crop sees zeros where the large image has pixels"

    def table(self) -> str:
        """The report for people to read."""
        verdict = "the same function" if self.same_at_training_size else "NOT the same function"
        crops = "equal" if self.same_as_crops else "different"
        window, stride = self.geometry["window"], self.geometry["stride"]
        field = self.geometry["receptive_field"]
        rows = [
            ("at the training size", f"relative error {self.max_error_at_training_size:.1e}: {verdict}"),
            ("against crops", f"{self.crops} cells, relative error {self.crops_max_error:.1e}: {crops}"),
            ("same answer as the crop", f"{self.crops_argmax_agreement:.0%} of the cells"),
            ("because", self.cause),
            ("window, stride", f"{window[0]} x {window[1]}, {stride[0]} x {stride[1]} pixels"),
            ("receptive field", "the whole image" if None in field else f"{field[0]} x {field[1]} pixels"),
        ]
        return "\n".join(f"{name:<24} {text}" for name, text in rows)

    def to_dict(self) -> dict:
        """The report as JSON holds it."""
        return {**asdict(self), "cause": self.cause}


def verify(model: keras.Model, fcn: keras.Model, image: np.ndarray | None = None) -> Verification:
    """Compare a converted model with its source at the training size, and cell by cell with crops.

    Args:
        model: the source, a classifier.
        fcn: its conversion, with pooling over windows.
        image: (h, w, C), at least one window in size; default: noise that gives 6 x 6 cells.

    Raises:
        InputError: where `fcn` is no conversion of `model` with windows, a model has several outputs or takes
            something else than one image, or the image is smaller than the window.
    """
    for each in (model, fcn):
        check_one_image(trace(each))
        check_one_output(each)
    if card(fcn).pooling == "global":
        raise InputError(f"model {fcn.name!r}: was converted with pooling='global'; accepted: pooling over windows")
    shape = geometry(fcn)
    window, stride = shape.window, shape.stride
    *built, channels = model.inputs[0].shape[1:]
    same_ends = (fcn.inputs[0].shape[-1], fcn.output_shape[-1]) == (channels, model.output_shape[-1])
    if len(fcn.output_shape) != 4 or not same_ends or (None not in built and tuple(built) != window):
        raise InputError(
            f"model {fcn.name!r}: is no conversion of {model.name!r}; accepted: what convolutionalize gave"
        )
    generator = np.random.default_rng(0)
    if image is None:
        size = [side + (_SIDE - 1) * step for side, step in zip(window, stride, strict=True)]
        image = generator.integers(0, 256, (*size, channels)).astype(np.float32)
    if any(side < least for side, least in zip(image.shape, window, strict=False)):
        raise InputError(f"image: received {image.shape[:2]}; accepted: at least the window {window}")
    placed = geometry(fcn, image.shape[:2])
    scores = scores_before(fcn, image[None])[0][0]
    boxes = [placed.cell_box(*cell) for cell in product(*map(range, scores.shape[:2]))]
    inside = [
        index
        for index, (top, left, bottom, right) in enumerate(boxes)
        if top >= 0 and left >= 0 and bottom <= image.shape[0] and right <= image.shape[1]
    ]
    chosen = generator.permutation(inside)[: _SIDE**2]
    crops = np.stack([image[top:bottom, left:right] for top, left, bottom, right in (boxes[index] for index in chosen)])
    wanted = np.stack([scores_before(model, crop[None])[0].reshape(-1) for crop in crops])
    given = scores.reshape(-1, scores.shape[-1])[chosen]
    return Verification(
        max_error_at_training_size=error_at_training_size(model, fcn, window),
        padding_free=shape.padding_free,
        bounded=shape.bounded,
        crops=len(chosen),
        crops_max_error=relative_error(given, wanted),
        crops_argmax_agreement=float((given.argmax(-1) == wanted.argmax(-1)).mean()),
        geometry=shape.to_dict(),
    )
