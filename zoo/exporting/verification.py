"""Every exported file is run by its own runtime, in a process without the zoo, and compared with the Keras model."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from zoo.errors import Differs
from zoo.exporting import alone
from zoo.exporting.carried import Carried, Precision, Verified
from zoo.exporting.format import CannotHold, Format
from zoo.network.graph import known_shape
from zoo.network.network import Network
from zoo.scores import relative_error

# max|a - b| / max|b| that is accepted, and the least share of places with the same highest score.
TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 2e-2}
SAME_WINNER: dict[Precision, float] = {"float32": 0.0, "bfloat16": 0.99}
# Sizes that are tried where sides are open.
_SIZES = 3
# Images, of one place at least, by which a share of places is told.
_PLACES = 100
# A side where the model says nothing of the sizes that it takes.
_SIDE = 32


def verified(network: Network, kind: Format, path: Path, carried: Carried) -> Verified:
    """Compare the file at `path` with the network that it was made of.

    Raises:
        CannotHold: where its runtime does not take it, or ends without an answer.
        Differs: where the scores are further apart than `TOLERANCE`.
    """
    batches = trial_batches(network, carried.image.dtype, carried.precision)
    names = [output.name for output in carried.outputs]
    wanted = [keras_scores(network, batch) for batch in batches]
    given, version = run_alone(kind, path, carried.precision, batches)
    what = f"export {str(path.name)!r}"
    error, same, places = 0.0, 0, 0
    for batch, theirs, ours in zip(batches, given, wanted, strict=True):
        if sorted(theirs) != sorted(names):
            raise Differs(f"{what}: its outputs are {sorted(theirs)}, and not {sorted(names)}")
        for name, own in zip(names, ours, strict=True):
            if not np.isfinite(own).all():
                raise Differs(f"{what}: {name} of the Keras model itself is not finite for {batch.shape} of noise")
            if theirs[name].shape != own.shape:
                raise Differs(f"{what}: {name} is {theirs[name].shape} for {batch.shape}, and {own.shape} in Keras")
            error = max(error, relative_error(theirs[name], own))
            if own.shape[axis := _channel(network, own)] > 1:
                winners = theirs[name].argmax(axis) == own.argmax(axis)
                same, places = same + int(winners.sum()), places + winners.size
    share = same / places if places else None
    tolerance, least = TOLERANCE[carried.precision], SAME_WINNER[carried.precision]
    if error > tolerance:
        raise Differs(f"{what}: {kind.runtime} gives scores of a relative error {error:.1e}; accepted: {tolerance:.0e}")
    if share is not None and share < least:
        raise Differs(f"{what}: {kind.runtime} has the same winner at {share:.1%} of {places}; accepted: {least:.0%}")
    return Verified(
        runtime=kind.runtime,
        runtime_version=version,
        images=tuple(dict.fromkeys(batch.shape for batch in batches)),
        error=error,
        tolerance=tolerance,
        same_winner=share,
    )


def _channel(network: Network, scores: np.ndarray) -> int:
    return network.axes.channel if scores.ndim == network.axes.rank else -1


def keras_scores(network: Network, batch: np.ndarray) -> list[np.ndarray]:
    """Every output of a network on a batch, by Keras."""
    return [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(network.model(batch, training=False))]


def run_alone(
    kind: Format, path: Path, precision: Precision, batches: Sequence[np.ndarray]
) -> tuple[list[dict[str, np.ndarray]], str]:
    """What a file gives for every batch in a fresh process, and the version of its runtime.

    Raises:
        CannotHold: where the process fails.
    """
    with tempfile.TemporaryDirectory(prefix="zoo-export-") as folder:
        images, scores = Path(folder) / "images.npz", Path(folder) / "scores.npz"
        named = {f"batch{index}": batch for index, batch in enumerate(batches)}
        np.savez(images, allow_pickle=False, **named)
        # -P: without this package's folder, or the current one, in its path.
        arguments = [kind.name, path.resolve(), precision, images, scores]
        line = [sys.executable, "-P", alone.__file__, *map(str, arguments)]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise CannotHold(_cause(done))
        with np.load(scores) as made:
            names = [str(name) for name in made["names"]]
            given = [
                {name: made[f"batch{index}_{number}"] for number, name in enumerate(names)}
                for index in range(len(batches))
            ]
            return given, str(made["version"])


def _cause(done: subprocess.CompletedProcess) -> str:
    """The error of a Python process in words."""
    if done.returncode < 0:
        return f"the runtime's process was ended by signal {-done.returncode}"
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    # After the traceback, whose lines are indented, comes the error, which may have several lines.
    last = max((index for index, line in enumerate(lines) if line.startswith("  ")), default=-1)
    return " ".join(line.strip() for line in lines[last + 1 :]) or f"exit code {done.returncode}"


def trial_batches(network: Network, dtype: str, precision: Precision = "float32") -> list[np.ndarray]:
    """Batches of noise: one and two images at each of several sizes, where the network leaves its sides open.

    Where a share of places is asked for, there are so many batches of two that it can be told.
    """
    generator = np.random.default_rng(0)
    shapes = [known_shape(network.axes.shape(size, network.channels)) for size in trial_sizes(network)]
    pairs = -(-_PLACES // (2 * len(shapes))) if SAME_WINNER[precision] else 1
    return [_noise(generator, network, (count, *shape), dtype) for shape in shapes for count in (1, *(2,) * pairs)]


def trial_sizes(network: Network) -> list[tuple[int, ...]]:
    """Sizes of images that a network takes: its own, and where it leaves sides open, two larger ones.

    The larger ones differ by other numbers along each axis, which few strides divide; where a layer's reach is not
    known, by multiples of 32, which most networks that halve and double their maps take.
    """
    built, program = network.graph.built_sides, network.program_as_built
    own = network.own_size or network.smallest_image or (_SIDE,) * network.axes.count
    is_known = not program.any(lambda move: not move.is_local)
    sizes = []
    for number in range(_SIZES if None in built else 1):
        size = []
        for axis, (fixed, side) in enumerate(zip(built, own, strict=True)):
            larger = side + number * ((7 + 6 * axis) if is_known else _SIDE * (1 + axis))
            fitting = program.fitting(axis, larger, 1) if is_known and fixed is None else larger
            size.append(fitting if fixed is None else fixed)
        sizes.append(tuple(size))
    return sizes


def _noise(generator: np.random.Generator, network: Network, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Noise over the whole range of a type of pixels; of floats, of the mean and deviation that the card names."""
    if dtype != "float32":
        return generator.integers(0, np.iinfo(dtype).max, shape, endpoint=True, dtype=dtype)
    about = network.card.preprocess
    mean, deviation = (about.mean, about.std) if about is not None else ((0.0,), (1.0,))
    noise = generator.normal(size=shape)
    return (noise * np.mean(deviation) + np.mean(mean)).astype(np.float32)
