"""Probabilities that mean what they say: one temperature for all scores, folded into the model's last kernel.

Guo et al. 2017, "On calibration of modern neural networks" (arXiv:1706.04599), section 4.2.
"""

from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from scipy.optimize import minimize_scalar

from zoo.data import Dataset
from zoo.errors import InputError, refuse
from zoo.evaluation import predict
from zoo.network.last_layer import fold_affine
from zoo.network.network import Network
from zoo.progress import note, say
from zoo.scores import expected_calibration_error, softmax
from zoo.settings import own_settings

# The temperatures looked at. Scores that are never wrong would have the smallest that there is.
_LEAST, _MOST = 0.1, 10.0


def find_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T > 0 with which the mean cross-entropy of logits / T, (n, K), for labels (n,) is smallest.

    It is looked for from 1/10 to 10. The cross-entropy is convex in 1/T, so that there is one minimum.

    Raises:
        InputError: where there is nothing to find it on, or logits are not finite.
    """
    logits = np.asarray(logits, np.float64)
    if not len(labels):
        refuse("calibration", "no labelled images or grid cells", "at least one in the validation part")
    if not np.isfinite(logits).all():
        refuse("calibration", "scores that are not finite", "those of a model whose training did not diverge")
    found = minimize_scalar(
        lambda log: cross_entropy(logits / np.exp(log), labels),
        bounds=np.log((_LEAST, _MOST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean cross-entropy in nats of logits (n, K) for labels (n,)."""
    return float(cross_entropies(logits, labels).mean())


def cross_entropies(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cross-entropy in nats of each row of logits (n, K) for labels (n,): (n,)."""
    shifted = logits - logits.max(-1, keepdims=True)
    return np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(len(labels)), labels]


@dataclass(frozen=True)
class Reliability:
    """How far probabilities can be relied on: mean cross-entropy in nats, and expected calibration error."""

    loss: float
    expected_calibration_error: float

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray) -> "Reliability":
        """Measure logits (n, K) against labels (n,)."""
        logits = np.asarray(logits, np.float64)
        return cls(cross_entropy(logits, labels), expected_calibration_error(softmax(logits), labels))


@dataclass(frozen=True)
class Calibration:
    """A temperature, found on `n` validation images or grid cells, which of both `of` says.

    `temperature`: `found`, with which the validation loss is smallest, where that is told from 1, else 1. It is where
    the loss is smaller by more than one standard error over the images (Breiman et al. 1984, "Classification and
    regression trees", section 3.4.3), and where some answers are wrong if `found` is below 1: without one the loss is
    the smaller the nearer a temperature is to 0, whatever the scores are. `gain`: by how much it is smaller, in nats.
    `spread`: that error, None of fewer than two images. `wrong`: how many of the n answers are. `before` and `after`:
    what `temperature` makes of the `n_test` test images or grid cells, which had no part in it.
    """

    temperature: float
    found: float
    gain: float
    spread: float | None
    of: str
    n: int
    wrong: int
    n_test: int
    before: Reliability
    after: Reliability

    @classmethod
    def measured(
        cls,
        of: str,
        validation: tuple[np.ndarray, np.ndarray],
        test: tuple[np.ndarray, np.ndarray],
        images: np.ndarray | None = None,
    ) -> "Calibration":
        """Find the temperature on `validation`, logits (n, K) and labels (n,), and measure it on `test`.

        Args:
            of: what they are of.
            validation: what the temperature is found on.
            test: what it is measured on.
            images: the index of each validation answer's image, (n,); each is of its own where None.
        """
        found = find_temperature(*validation)
        gain, spread = _gain(*validation, found, images)
        wrong = int((np.asarray(validation[0]).argmax(-1) != validation[1]).sum())
        is_told = spread is not None and gain > spread and (found > 1 or wrong > 0)
        temperature = found if is_told else 1.0
        logits, labels = np.asarray(test[0], np.float64), test[1]
        before, after = Reliability.of(logits, labels), Reliability.of(logits / temperature, labels)
        return cls(temperature, found, gain, spread, of, len(validation[1]), wrong, len(labels), before, after)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON holds it."""
        return asdict(self)

    def sentence(self) -> str:
        """The result for people to read."""
        before, after = (each.expected_calibration_error for each in (self.before, self.after))
        on = f"{self.n:,} {self.of} of the validation part"
        if self.temperature != self.found:
            spread = "not known" if self.spread is None else f"{self.spread:.2g}"
            return (
                f"calibrated as it is: on {on}, {self.wrong:,} of them wrong, the temperature {self.found:.3f} "
                f"lowers the loss by {self.gain:.2g}, whose standard error over images is {spread}; "
                f"expected calibration error {before:.2%}, on {self.n_test:,} of the test part"
            )
        is_bound = not 1.01 * _LEAST < self.temperature < _MOST / 1.01
        bound = ", as far as is looked" if is_bound else ""
        return (
            f"calibrated on {on} by the temperature {self.temperature:.3f}{bound}: "
            f"expected calibration error {before:.2%} before, {after:.2%} after, on {self.n_test:,} of the test part"
        )


def _gain(
    logits: np.ndarray, labels: np.ndarray, temperature: float, images: np.ndarray | None
) -> tuple[float, float | None]:
    """By how much a temperature lowers the mean cross-entropy, and the standard error of that over images.

    The mean is a ratio of sums over images: of gains, of answers (Cochran 1977, "Sampling techniques", section 2.11).
    """
    logits = np.asarray(logits, np.float64)
    each = cross_entropies(logits, labels) - cross_entropies(logits / temperature, labels)
    images = np.arange(len(labels)) if images is None else np.unique(images, return_inverse=True)[1]
    gains, answers = np.bincount(images, each), np.bincount(images)
    gain, count = float(each.mean()), len(answers)
    if count < 2:
        return gain, None
    return gain, float(np.sqrt(np.square(gains - gain * answers).sum() * count / (count - 1)) / answers.sum())


@own_settings()
def calibrate_on_images(model: keras.Model, dataset: Dataset) -> Calibration | None:
    """Calibrate a classifier, in place, on the images that are held out for validation.

    Returns:
        The calibration, measured on the test images; None, with the reason said, where a temperature cannot be folded
        into this model.

    Raises:
        ValueError: where no images are held out.
    """
    if dataset.validation is None:
        raise ValueError("dataset: has no validation images")
    validation, test = (
        (predict(model, part.images), np.asarray(part.labels)) for part in (dataset.validation, dataset.test)
    )
    return fold_measured(model, Calibration.measured("images", validation, test))


def fold_measured(model: keras.Model, calibration: Calibration) -> Calibration | None:
    """Fold a calibration's temperature into its model, and say what it brings, or why that cannot be done."""
    try:
        fold_temperature(model, calibration.temperature)
    except InputError as error:
        note(f"not calibrated: {error}")
        return None
    say(calibration.sentence())
    return calibration


def fold_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """Divide a model's first output, its logits, by a temperature: exactly, in the kernel and bias that make them.

    The model is changed in place, and returned. Its other outputs stay as they are.

    Raises:
        InputError: for a temperature that is no number above 0; where the first output is no logits, or they do not
            come from a Dense or convolutional layer, whose result a factor can follow to the output and nothing else.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        refuse("temperature", temperature, "a number above 0")
    network = Network.of(model)
    kind = network.outputs_are[0]
    if kind != "logits":
        refuse(f"model {network.name!r}", kind, "logits, which a temperature divides")
    return fold_affine(network, 1 / temperature)
