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
from zoo.progress import say
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
    shifted = logits - logits.max(-1, keepdims=True)
    sums = np.log(np.exp(shifted).sum(-1))
    return float((sums - shifted[np.arange(len(labels)), labels]).mean())


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

    `before` and `after`: what it makes of the `n_test` test images or grid cells, which had no part in it.
    """

    temperature: float
    of: str
    n: int
    n_test: int
    before: Reliability
    after: Reliability

    @classmethod
    def measured(
        cls, of: str, validation: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
    ) -> "Calibration":
        """Find the temperature on `validation`, logits (n, K) and labels (n,), and measure it on `test`."""
        temperature = find_temperature(*validation)
        logits, labels = np.asarray(test[0], np.float64), test[1]
        before, after = Reliability.of(logits, labels), Reliability.of(logits / temperature, labels)
        return cls(temperature, of, len(validation[1]), len(labels), before, after)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON holds it."""
        return asdict(self)

    def sentence(self) -> str:
        """The result for people to read."""
        before, after = (each.expected_calibration_error for each in (self.before, self.after))
        is_bound = not 1.01 * _LEAST < self.temperature < _MOST / 1.01
        bound = ", as far as is looked" if is_bound else ""
        return (
            f"calibrated on {self.n:,} {self.of} of the validation part by the temperature "
            f"{self.temperature:.3f}{bound}: "
            f"expected calibration error {before:.2%} before, {after:.2%} after, on {self.n_test:,} of the test part"
        )


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
        say(f"not calibrated: {error}")
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
