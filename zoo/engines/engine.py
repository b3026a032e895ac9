"""An engine: what gives the scores of a network. No backend is needed to take one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from zoo.errors import refuse
from zoo.network.finer import FinerGeometry

if TYPE_CHECKING:
    from zoo.network.network import Network

EngineName = Literal["keras", "openvino"]
Precision = Literal["float32", "bfloat16"]
Run = Callable[[np.ndarray], np.ndarray]

ENGINES: tuple[EngineName, ...] = get_args(EngineName)
# From the smallest range to the largest.
_RANGES = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Engine:
    """What gives the scores of a network: called with images (B, h, w, C), it gives (B, rows, cols, K); NumPy arrays.

    `precision`: what it computes in, where that is not the model's own. `fragments`: of a network without padding,
    what gives its scores on a finer grid; None where the engine cannot.
    """

    network: "Network"
    name: EngineName
    run: Run
    precision: Precision | None = None
    fragments: Callable[[FinerGeometry], Run] | None = None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The scores of a batch of images; of a classifier, (B, K)."""
        return self.run(images)

    def check(self, scores: np.ndarray, what: str) -> np.ndarray:
        """The scores, if all of them are finite; see `check_scores`."""
        return check_scores(scores, what, self.network, self.name, self.precision)


def check_scores(
    scores: np.ndarray,
    what: str,
    network: "Network",
    engine: EngineName = "keras",
    precision: Precision | None = None,
) -> np.ndarray:
    """The scores, if all of them are finite.

    Raises:
        InputError: beginning with `what`, and naming the precision that they were computed in, where some are not.
    """
    if np.isfinite(scores).all():
        return scores
    own = next(filter(network.compute_dtypes.__contains__, _RANGES), "float32")
    computed = (precision or "float32") if engine == "openvino" else own
    refuse(
        what,
        f"scores that are not finite, computed in {computed} by the engine {engine!r}",
        f"finite ones{'' if computed in ('float32', 'float64') else ', as of the same model in float32'}",
    )
