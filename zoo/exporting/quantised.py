"""int8: static quantisation by ONNX Runtime, calibrated on training images, and the gate that its result has to pass.

The gate is that of `zoo evaluate --against`: `zoo.comparison.compare`, on the same test images.
"""

import importlib.metadata
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np

from zoo import processor
from zoo.classes import difference
from zoo.comparison import check_images, compare
from zoo.data import Dataset
from zoo.errors import Differs, InputError, refuse, shortened
from zoo.evaluation import predict
from zoo.exported.carried import Carried, Quantised
from zoo.exported.format import IMAGE, CannotHold, EngineFormat, Format, converting
from zoo.exported.onnx_file import Onnx
from zoo.exporting.verification import run_alone
from zoo.network.network import Network
from zoo.trial_images import side_by_side

# Operations that are computed in int8: those with kernels, and what lies between two of them and takes int8 as it is.
_WITH_KERNELS = ("Conv", "Gemm", "MatMul")
_BETWEEN = ("Relu", "MaxPool", "Concat", "Pad")
# Training images that are drawn, and how many of them, or of test images, are run at once.
_DRAWN, _BATCH = 256, 32
# The fall in accuracy that is accepted, where nobody says otherwise.
TOLERANCE = 0.005
# Bytes of test images that are handed to the runtime's process at a time.
_BYTES = 2**28


@dataclass(frozen=True)
class Trial:
    """Images that an export in int8 is calibrated and measured on, (n, H, W, C) of the model's own size.

    `training`: those that the ranges of its activations are found on. `test`: others, and `labels`, (n,) whole numbers,
    their classes; None where these are not known. `of`: the data set. `tolerance`: the fall in accuracy on the test
    images that is accepted; without labels the share of them with another winner than the model's. `class_names`: the
    data's; None where not known.
    """

    training: Any
    test: Any
    labels: np.ndarray | None
    of: str
    class_names: tuple[str, ...] | None = None
    tolerance: float = TOLERANCE

    @classmethod
    def of_data(cls, dataset: Dataset, tolerance: float = TOLERANCE, seed: int = 0) -> "Trial":
        """A data set's training images, of which some are drawn, and all its test images."""
        count = min(len(dataset.train), _DRAWN)
        drawn = np.sort(np.random.default_rng(seed).permutation(len(dataset.train))[:count])
        test, names = dataset.test, dataset.class_names
        return cls(dataset.train.images[drawn], test.images, test.labels, dataset.name, names, tolerance)

    def check(self, network: Network, dtype: str) -> None:
        """Check that a network classifies such images.

        Raises:
            InputError: where it does not, or a file that takes `dtype` would have to cast them.
        """
        network.check_one_image()
        network.check_one_output()
        if network.card.target == "count" or network.units() < 2:
            refuse("precision int8", "a model without classes", "a classifier of two classes or more, of images")
        if (names := self.class_names) is not None:
            known = network.class_names if network.units() != len(names) else network.card.class_names or names
            if differ := difference(known, names, "the model", self.of):
                raise InputError(f"classes: {differ}; accepted: the model's own, in their order")
        for what, images in (("training images", self.training), ("test images", self.test)):
            if not len(images):
                refuse(f"precision int8: {what} of {self.of}", "none", "some")
            check_images(network.model, images, f"{what} of {self.of}")
            if not np.can_cast(images.dtype, dtype):
                refuse(f"{what} of {self.of}", f"samples of {images.dtype}", f"{dtype}, as the model takes")

    def pictures(self, network: Network) -> list[np.ndarray]:
        """Test images for the comparison at several sizes: side by side, where the network takes larger ones."""
        if None in network.graph.built_sides:
            return [side_by_side(self.test, 0)]
        return list(np.asarray(self.test[: 2 * _BATCH]))


def write_quantised(kind: EngineFormat, served: keras.Model, path: Path, carried: Carried, trial: Trial) -> None:
    """Write a model in int8, as `Format.write` does in float32.

    Raises:
        CannotHold: where ONNX, the quantiser or the format cannot take it.
    """
    with tempfile.TemporaryDirectory(prefix="zoo-export-") as folder:
        plain, made = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        Onnx().write(served, plain, carried)
        with converting(path):
            quantise(plain, made, trial.training, carried.image.dtype)
        kind.from_onnx(made, path)


def quantise(plain: Path, made: Path, images: Any, dtype: str) -> None:
    """Quantise an .onnx file by ONNX Runtime: weights for each channel, activations by their range on `images`.

    The layers that give the outputs stay in float32, so that scores keep their digits. Weights have `weight_bits()`.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization import QuantFormat, QuantType

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = _batches(images, dtype)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({IMAGE: batch} for batch in self._batches), None)

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises to fold, which was done
    try:
        quantization.quantize_static(
            plain,
            made,
            Reader(),
            QuantFormat.QDQ,
            op_types_to_quantize=[*_WITH_KERNELS, *_BETWEEN],
            nodes_to_exclude=_last_nodes(onnx.load(str(plain)).graph),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=weight_bits() < 8,
        )
    finally:
        logging.disable(before)


def weight_bits() -> int:
    """The bits of weights: 8, or 7 where this processor would saturate, or nothing tells whether it would."""
    return 8 if processor.saturates() is False else 7


def refuse_quantised(kind: Format, network: Network, error: CannotHold) -> NoReturn:
    """Refuse a model that cannot be written in int8, or is not run so.

    Raises:
        InputError: always.
    """
    cause = shortened(" ".join(str(error).split()), 200)
    received = f"precision int8, in which {kind.name} cannot hold it ({cause})"
    refuse(f"model {network.name!r}", received, "another precision; float32 names a layer that no ONNX file holds")


def _batches(images: Any, dtype: str) -> Iterator[np.ndarray]:
    return (np.asarray(images[start : start + _BATCH]).astype(dtype) for start in range(0, len(images), _BATCH))


def _last_nodes(graph: Any) -> list[str]:
    """The names of an ONNX graph's nodes with kernels after which there is no other on the way to an output."""
    makers = {made: node for node in graph.node for made in node.output}
    waiting, found = [output.name for output in graph.output], set()
    while waiting:
        if (node := makers.get(waiting.pop())) is None:
            continue
        if node.op_type in _WITH_KERNELS:
            found.add(node.name)
        else:
            waiting += node.input
    return sorted(found)


def measured(network: Network, kind: Format, path: Path, carried: Carried, trial: Trial) -> Quantised:
    """Measure the file at `path` on the test images, in its own runtime in a process of its own, beside the network.

    Raises:
        InputError: where the network gives several answers for a test image.
        Differs: where accuracy fell by more than the tolerance, over all images or in a class.
    """
    (name,) = (output.name for output in carried.outputs)
    ours = _winners(network, predict(network.model, trial.test))
    theirs, version = [], ""
    size = max(_BATCH, _BYTES // (np.prod(trial.test.shape[1:]) * np.dtype(carried.image.dtype).itemsize))
    for start in range(0, len(trial.test), int(size)):
        batches = list(_batches(trial.test[start : start + int(size)], carried.image.dtype))
        scores, version = run_alone(kind, path, carried.precision, batches)
        theirs += [each[name].reshape(len(batch), -1) for each, batch in zip(scores, batches, strict=True)]
    winners = _winners(network, np.concatenate(theirs))
    labels = ours if trial.labels is None else np.asarray(trial.labels)
    comparison = compare(ours == labels, winners == labels, labels, network.class_names, trial.tolerance)
    if comparison.regressions:
        what = "accuracy on" if trial.labels is not None else "the same winners for"
        fell = f"{what} {len(labels):,} test images of {trial.of} fell: {'; '.join(comparison.regressions)}"
        raise Differs(f"export {path.name!r} in int8: {fell}; accepted: {trial.tolerance:.2%}")
    known = trial.labels is not None
    return Quantised(
        by=f"onnxruntime {importlib.metadata.version('onnxruntime')}, run by {kind.runtime} {version}",
        calibrated_on=f"{len(trial.training):,} training images of {trial.of}",
        measured_on=f"test images of {trial.of}",
        n=len(labels),
        weight_bits=weight_bits(),
        same_winner=float((winners == ours).mean()),
        accuracy_in_keras=comparison.overall.old if known else None,
        accuracy=comparison.overall.new if known else None,
        tolerance=trial.tolerance,
    )


def _winners(network: Network, scores: np.ndarray) -> np.ndarray:
    if scores.shape[1] != (units := network.units()):
        answers = f"{scores.shape[1] // units} answers for one of its training images"
        refuse(f"model {network.name!r}", answers, "for int8, a model with one, as a converted classifier")
    return scores.argmax(-1)
