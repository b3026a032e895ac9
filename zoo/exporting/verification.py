"""Every exported file is run by its own runtime, in a process without the zoo, and compared with the Keras model."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.errors import Differs, refuse
from zoo.exported import alone
from zoo.exported.carried import Carried, Precision, Verified
from zoo.exported.format import CannotHold, Format
from zoo.exporting.trial_files import FILE_TOLERANCE, scores_of_files, trial_files
from zoo.network.graph import known_shape
from zoo.network.network import Network
from zoo.scores import relative_error

# max|a - b| / max|b| that is accepted, and the least share of places with the same highest score.
# In int8 it is winners alone: what its rounding is relative to is not the largest score.
TOLERANCE: dict[Precision, float | None] = {"float32": 1e-4, "bfloat16": 2e-2, "int8": None}
SAME_WINNER: dict[Precision, float] = {"float32": 0.0, "bfloat16": 0.99, "int8": 0.95}
# Sizes that are tried where sides are open.
_SIZES = 3
# Images, of one place at least, by which a share of places is told.
_PLACES = 100
# A side where the model says nothing of the sizes that it takes.
_SIDE = 32


def verified(network: Network, kind: Format, path: Path, carried: Carried, images: Sequence[Any] = ()) -> Verified:
    """Compare the file at `path` with the network that it was made of, on `images` or noise (see `trial_batches`).

    Raises:
        InputError: where the images are of another type than the file takes.
        CannotHold: where its runtime does not take it, or ends without an answer.
        Differs: where the scores are further apart than `TOLERANCE`.
    """
    batches = trial_batches(network, carried.image.dtype, carried.precision, images)
    names = [output.name for output in carried.outputs]
    wanted = [keras_scores(network, batch) for batch in batches]
    form = kind.files(carried)
    files = {} if form is None else trial_files(form)
    given, version = run_alone(kind, path, carried.precision, [*batches, *files.values()])
    what = f"export {str(path.name)!r}"
    error, same, places = 0.0, 0, 0
    for batch, theirs, ours in zip(batches, given[: len(batches)], wanted, strict=True):
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
    if tolerance is not None and error > tolerance:
        raise Differs(f"{what}: {kind.runtime} gives scores of a relative error {error:.1e}; accepted: {tolerance:.0e}")
    if share is not None and share < least:
        advice = "" if images else " (of noise, which has no clear one: give images that the model knows)"
        received = f"{kind.runtime} has the same winner at {share:.1%} of {places} places{advice}"
        raise Differs(f"{what}: {received}; accepted: {least:.0%}")
    of_files = 0.0
    for (name, contents), theirs in zip(files.items(), given[len(batches) :], strict=True):
        apart = relative_error(theirs[names[0]], scores_of_files(network, contents.tolist()))
        if apart > FILE_TOLERANCE[name]:
            received = f"{kind.runtime} gives scores of a relative error {apart:.1e} for {name} files"
            raise Differs(f"{what}: {received}; accepted: {FILE_TOLERANCE[name]:.0e}")
        of_files = max(of_files, apart)
    return Verified(
        runtime=kind.runtime,
        runtime_version=version,
        tried_on=f"{len(images)} images" if images else "noise",
        images=tuple(dict.fromkeys(batch.shape for batch in batches)),
        error=error,
        tolerance=tolerance,
        same_winner=share,
        error_of_files=of_files if files else None,
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


def trial_batches(
    network: Network, dtype: str, precision: Precision = "float32", images: Sequence[Any] = ()
) -> list[np.ndarray]:
    """Batches of one and two images, at each of several sizes where the network leaves its sides open.

    They are cut out of `images`, which are (H, W, C) and read by slices, at random; at sizes that none of them has, and
    without images, they are noise. Images at a model's scale (`zoo.scanning.pixels.Pixels`) are rounded. Where a share
    of places is asked for, there are so many batches of two that it can be told.

    Raises:
        InputError: where images are of a type that would have to be cast to `dtype`, or none is large enough.
    """
    generator = np.random.default_rng(0)
    shapes = [known_shape(network.axes.shape(size, network.channels)) for size in trial_sizes(network)]
    pairs = -(-_PLACES // (2 * len(shapes))) if SAME_WINNER[precision] else 1
    counts = [(count, shape) for shape in shapes for count in (1, *(2,) * pairs)]
    if not images:
        return [_noise(generator, network, (count, *shape), dtype) for count, shape in counts]
    network.check_one_image()
    for image in images:
        # What was brought to a model's scale is means of pixels, which the file takes rounded.
        if not np.can_cast(image.dtype, dtype) and getattr(image, "given", None) is None:
            refuse("images to compare on", f"samples of {image.dtype}", f"{dtype}, as the model takes")
    if not _as_large(images, shapes[0][network.axes.spatial.start - 1 :]):
        refuse("images to compare on", f"none as large as {shapes[0]}", "images of at least that height and width")
    return [cut_out(generator, network, images, (count, *shape), dtype) for count, shape in counts]


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


def cut_out(
    generator: np.random.Generator, network: Network, images: Sequence[Any], shape: tuple[int, ...], dtype: str
) -> np.ndarray:
    """A batch of parts of images, at random places; noise where no image is as large."""
    if not images:
        return _noise(generator, network, shape, dtype)
    height, width = shape[network.axes.spatial]
    if not (large := _as_large(images, (height, width))):
        return _noise(generator, network, shape, dtype)
    parts = []
    for index in generator.integers(0, len(large), shape[0]):
        top, left = (
            generator.integers(0, side - part + 1)
            for side, part in zip(large[index].shape, (height, width), strict=False)
        )
        part = np.asarray(large[index][top : top + height, left : left + width])
        parts.append((part if np.can_cast(part.dtype, dtype) else np.rint(part)).astype(dtype))
    return network.axes.own(np.stack(parts))


def _as_large(images: Sequence[Any], sides: tuple[int, ...]) -> list[Any]:
    """The images that have at least this height and width."""
    return [image for image in images if image.shape[0] >= sides[0] and image.shape[1] >= sides[1]]


def _noise(generator: np.random.Generator, network: Network, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Noise over the whole range of a type of pixels; of floats, of the mean and deviation that the card names."""
    if dtype != "float32":
        return generator.integers(0, np.iinfo(dtype).max, shape, endpoint=True, dtype=dtype)
    about = network.card.preprocess
    mean, deviation = (about.mean, about.std) if about is not None else ((0.0,), (1.0,))
    noise = generator.normal(size=shape)
    return (noise * np.mean(deviation) + np.mean(mean)).astype(np.float32)
