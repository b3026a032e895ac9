"""An engine: what gives the scores of a network. No backend is needed to take one."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from zoo.errors import refuse
from zoo.network.finer import FinerGeometry
from zoo.network.scannable import Scannable

# Those of Keras models. An exported file is computed by its own runtime.
EngineName = Literal["keras", "openvino"]
RuntimeName = Literal["openvino", "onnxruntime"]
Precision = Literal["float32", "bfloat16", "int8"]
Run = Callable[[np.ndarray], np.ndarray]

ENGINES: tuple[EngineName, ...] = get_args(EngineName)
# From the smallest range to the largest.
_RANGES = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Engine:
    """What gives the scores of a network: called with images (B, h, w, C), it gives (B, rows, cols, K); NumPy arrays.

    `precision`: what it computes in, None where that is the model's own. `fragments`: of a network without padding,
    what gives its scores on a finer grid; None where the engine cannot.
    """

    network: Scannable
    name: EngineName | RuntimeName
    run: Run
    precision: Precision | None = None
    fragments: Callable[[FinerGeometry], Run] | None = None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The scores of a batch of images; of a classifier, (B, K)."""
        return self.run(images)

    def check(self, scores: np.ndarray, what: str) -> np.ndarray:
        """The scores, if all of them are finite; see `check_scores`."""
        return check_scores(scores, what, self.network, self.name, self.precision)


def threads() -> int:
    """On how many threads OpenVINO and ONNX Runtime compute: OMP_NUM_THREADS, as everybody else does; 0 is all."""
    number = os.environ.get("OMP_NUM_THREADS", "")
    return int(number) if number.isdecimal() else 0


def check_scores(
    scores: np.ndarray,
    what: str,
    network: Scannable,
    engine: EngineName | RuntimeName = "keras",
    precision: Precision | None = None,
) -> np.ndarray:
    """The scores, if all of them are finite.

    Raises:
        InputError: beginning with `what`, and naming the precision that they were computed in, where some are not.
    """
    if np.isfinite(scores).all():
        return scores
    own = next(filter(network.compute_dtypes.__contains__, _RANGES), "float32")
    computed = precision or own
    refuse(
        what,
        f"scores that are not finite, computed in {computed} by the engine {engine!r}",
        f"finite ones{'' if computed in ('float32', 'float64') else ', as of the same model in float32'}",
    )
