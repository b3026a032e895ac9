"""Is the converted model the same function, and where it is not, by how much."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np

from zoo.convert.cells import NOISE, Answers, NamedImage, named_images, samples_of
from zoo.convert.conversion import Conversion, convert
from zoo.convert.oracle import EXACT, error_at_training_size
from zoo.convert.twin import error_of_inner_cells
from zoo.errors import InputError, listing, refuse
from zoo.network.network import Network
from zoo.network.program import Ints
from zoo.scores import LOW_AGREEMENT, WAY_OUT, Outputs, agreement, lost, relative_error
from zoo.settings import own_settings


@dataclass(frozen=True)
class Verification:
    """What a conversion keeps; errors are max|a - b| / max|b|, of what a softmax or sigmoid at the end is given.

    `max_error_at_training_size`: the single cell against the source model; None for a padding-free twin, which has no
    training size. `max_error_inner_cells`: a twin's cells against those of the padded net whose field is not cut; None
    for what is no twin. `crops`, `crops_max_error`, `crops_mean_error`, `crops_argmax_agreement`: the cells of a
    larger image, each against the source model on the cell's own crop; of a twin, against the twin itself on that
    crop. `padding_free`: whether crops must agree, unless layers repeat rows (`upsampling`) or look at the whole image
    (`global_blocks`). A padded net sees zeros beyond a crop's border where the large image has pixels, so there the
    difference is reported, not judged. The mean error is mean|a - b| / max|b|. `classes_lost`: classes that some crops
    are answered with, and no cell, with the number of crops; of one output. `measured_on`: the images that the cells
    are of, by their names, or "noise"; `too_small`: those given that no window fits into. `classifier_crops`,
    `classifier_argmax_agreement`: of a twin, how many crops of the training size, in the middle of its windows, the
    source was given, and how often it answers as the cell does; None where none lies in an image. Of a model with
    several outputs each number is that of the worst.
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
    classes_lost: dict[str, int] = field(default_factory=dict)
    measured_on: tuple[str, ...] = (NOISE,)
    too_small: tuple[str, ...] = ()
    classifier_crops: int = 0
    classifier_argmax_agreement: float | None = None

    @property
    def bounded(self) -> bool:
        """Whether every cell depends on a part of the image alone."""
        return not self.global_blocks

    @property
    def same_function(self) -> bool:
        """Whether the model is the source's function at the training size; of a twin, at the cells not cut."""
        twin = self.max_error_inner_cells is not None
        error = self.max_error_inner_cells if twin else self.max_error_at_training_size
        return error is not None and error <= EXACT

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
        # Where no layer pads, it is so on every image.
        where = "" if self.padding_free and self.same_as_crops else f", {self._where}"
        errors = f"relative error {self.crops_max_error:.1e} at most, {self.crops_mean_error:.1e} on average"
        window, stride, field = (self.geometry[key] or [] for key in ("window", "stride", "receptive_field"))
        rows = [
            first,
            ("against crops", f"{self.crops} cells, {errors}: {crops}"),
            ("same answer as the crop", f"{self.crops_argmax_agreement:.0%} of the cells{where}"),
            *self._classes_row(),
            ("because", self.cause),
            *self._classifier_row(),
            ("window, stride", f"{_by(window)}, {_by(stride)} pixels"),
            ("receptive field", "the whole image" if None in field else f"{_by(field)} pixels"),
        ]
        rows += [("left out, too small", listing(self.too_small, 3))] if self.too_small else []
        rows += [("note", self.advice)] if self.advice else []
        return "\n".join(f"{name:<29} {text}" for name, text in rows)

    def _classes_row(self) -> list[tuple[str, str]]:
        most = sorted(self.classes_lost.items(), key=lambda each: -each[1])
        lines = [f"{name} ({count} of {self.crops} crops)" for name, count in most]
        return [("never the answer of a cell", listing(lines, 3))] if lines else []

    def _classifier_row(self) -> list[tuple[str, str]]:
        if self.classifier_argmax_agreement is None:
            return []
        share = f"{self.classifier_argmax_agreement:.0%} of {self.classifier_crops} crops of the training size"
        return [("same answer as the classifier", f"{share}, {self._where}")]

    @property
    def _where(self) -> str:
        """What the cells are of, in words."""
        if self.measured_on == (NOISE,):
            return "on noise, which says little of your images; give some of them"
        return f"on {listing(self.measured_on, 3)}"

    @property
    def advice(self) -> str:
        """What to do where the cells answer otherwise than the classifier does; else empty."""
        if self.classifier_argmax_agreement is not None and self.classifier_argmax_agreement < LOW_AGREEMENT:
            return f"the twin is another classifier here; {WAY_OUT}"
        if self.crops_argmax_agreement < LOW_AGREEMENT and not self.padding_free and self.bounded:
            return f"a scan answers otherwise than the classifier here; {WAY_OUT}"
        return ""

    def to_dict(self) -> dict:
        """The report as JSON holds it."""
        return {**asdict(self), "bounded": self.bounded, "cause": self.cause}


@own_settings()
def verify(
    model: keras.Model, fcn: keras.Model, image: Any | Sequence[Any] | None = None, progress: bool = False
) -> Verification:
    """Compare a converted model with its source at the training size, and cell by cell with crops.

    A padding-free twin is compared with the padded net's cells whose field is not cut, with itself on crops, and with
    the classifier on crops of its own size. Both models compute in float32 at least, whatever their dtype policy is.
    Every output is compared. The share of equal answers is that of the images it is measured on: give those that you
    scan.

    Args:
        model: the source, a classifier; of a twin also the padded net's conversion.
        fcn: its conversion, with pooling over windows.
        image: (h, w, C), an array or what is read by slices like one, at least one window in size; or a list of such
            images. Default: noise that gives 6 x 6 cells (36 of a sequence).
        progress: show a bar over the crops, on a terminal.

    Raises:
        InputError: where `fcn` is no conversion of `model` with windows, a model takes something else than one image,
            or no image is as large as the window.
    """
    source, converted = Network.of(model), Network.of(fcn)
    trained = _trained_size_of_twin(converted)
    if trained and source.built_size is None:
        source = Network.of(source, trained)
    for each in (source, converted):
        each.check_one_image((1, 2))
    if converted.card.pooling == "global":
        raise InputError(f"model {fcn.name!r}: was converted with pooling='global'; accepted: pooling over windows")
    _check_conversion(source, converted)
    if trained:
        error = error_of_inner_cells(convert(source).network, converted, trained)
        checked = Conversion(converted, error_of_inner_cells=error)
    else:
        size = converted.geometry().window_sides if source.head.collapses else source.built_size
        size = size or converted.geometry().window_sides
        checked = Conversion(converted, error_at_training_size(source, converted, size))
    return verified(source, checked, None if image is None else named_images(image), progress)


def verified(
    source: Network, conversion: Conversion, images: Sequence[NamedImage] | None = None, progress: bool = False
) -> Verification:
    """`verify` for a conversion that was checked as it was made: it is compared with crops.

    `images`: with their names.

    Raises:
        InputError: where no image is as large as the window.
    """
    converted = conversion.network
    if source.has_head and any(source.head.kinds[key] != "vector" for key in source.graph.outputs):
        refuse(
            f"model {source.name!r}", "a map among its outputs, beside a vector", "vectors of classes, or one output"
        )
    shape, trained = converted.geometry(), _trained_size_of_twin(converted)
    if not source.head.collapses and not shape.padding_free:
        received = "a map of a net that pads, of whose cells none is the answer to a crop"
        refuse(f"model {source.name!r}", received, "a classifier, or a map without padding")
    samples = samples_of(converted, images, progress)
    # What was a map all along takes images of its built size alone, which may be none of a crop.
    answering = converted if trained or not source.head.collapses else source
    pairs = samples.against(answering, (0,) * converted.axes.count, shape.window_sides)
    classifier: list[Answers] = []
    if trained:
        # The crop that the padded net's cell stands for, in the middle of the twin's window.
        spans = source.program.spans(trained)
        classifier = samples.against(source, tuple(-span.start for span in spans), trained)
    least, names = np.finfo(np.float32).tiny, converted.card.class_names
    outputs = converted.outputs_are
    gone = lost(*pairs[0], outputs[0]) if len(pairs) == 1 else {}
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
        crops_argmax_agreement=_least_agreement(pairs, outputs),
        geometry=shape.to_dict(),
        classes_lost={names[index] if names else str(index): count for index, count in gone.items()},
        measured_on=samples.names,
        too_small=samples.too_small,
        classifier_crops=len(classifier[0][0]) if classifier else 0,
        classifier_argmax_agreement=_least_agreement(classifier, outputs) if classifier else None,
    )


def _least_agreement(pairs: Sequence[Answers], outputs: Sequence[Outputs]) -> float:
    """The share of rows that say the same in both of a pair, of the output of which that is the least."""
    return min(agreement(*pair, kind) for pair, kind in zip(pairs, outputs, strict=True))


def _trained_size_of_twin(converted: Network) -> Ints | None:
    """The size that a padding-free twin's source was trained at; None of what is no twin."""
    return converted.card.image_size if converted.card.padding == "valid" else None


def _check_conversion(source: Network, converted: Network) -> None:
    """Check that two models take the same images, give the same classes, and one gives a map for the other's size."""
    ends = [(each.channels, *map(each.units, range(len(each.model.outputs)))) for each in (source, converted)]
    gives_maps = all(len(output.shape) == converted.axes.rank for output in converted.model.outputs)
    fits = converted.card.padding == "valid" or not source.head.collapses
    if not gives_maps or ends[0] != ends[1] or not (fits or source.built_size in (None, converted.geometry().window)):
        raise InputError(
            f"model {converted.name!r}: is no conversion of {source.name!r}; accepted: what convolutionalize gave"
        )


def _by(sides: list[int]) -> str:
    return " x ".join(map(str, sides))
