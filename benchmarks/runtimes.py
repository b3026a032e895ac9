"""Every way to run a net on this processor, by turns: Keras, its exports, and PyTorch with the same weights.

    pip install -e '.[benchmarks,onnx,openvino,litert]'
    python benchmarks/runtimes.py [NET...] [--rounds 5] [--threads 2] --record docs/records/runtimes.json

Each way is a process that stays; one at a time works, in turn, several rounds, so that what else the machine does meets
all of them. Images go in as (B, H, W, C) of uint8 and scores come out as an array, everywhere. Latency is that of one
image, throughput that of the batch which is best of a few. The table has the medians of the rounds, least and largest
in brackets, and within each round the ratio to that way in PyTorch which is fastest: above 1 is faster than it. What
computes in float32 has to give Keras's scores within 1e-4 before anything is timed; the error of the others is in the
table. A way that cannot be run has a row that says why. PyTorch is channels last, and compiled with frozen weights.

Nets with shipped weights are measured on all test images; the others have random weights at half their first values.
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from record import add_option, report, spread
from turns import seconds, start

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
Run = Callable[[np.ndarray], np.ndarray]
# The largest relative error to Keras in float32, and how long a way works at its turn, in seconds.
TOLERANCE, TURN = 1e-4, 1.0


@dataclass(frozen=True)
class Case:
    """What is run: a net of the catalogue, at its own size or, converted, at another `side`.

    `batches`: those of which the best is taken for throughput.
    """

    net: str
    batches: tuple[int, ...]
    side: int | None = None


CASES = {
    "resnet50": Case("resnet50", (1, 4, 16)),
    "inception_v3": Case("inception_v3", (1, 16)),
    "nin_cifar10_bn": Case("nin_cifar10_bn", (1, 32, 128)),
    "resnet50_1024": Case("resnet50", (1,), 1024),
}


def keras_predict(path: Path) -> Run:
    """Keras's own way."""
    import keras

    model = keras.models.load_model(path)
    return lambda images: model.predict(images, batch_size=len(images), verbose=0)


def exported(path: Path) -> Run:
    """A file of `zoo export`, as the zoo opens it."""
    from zoo.exported.reading import opened

    run = opened(path)
    return lambda images: next(iter(run(images).values()))


def torch_module(path: Path, compiled: bool) -> Run:
    """A twin in PyTorch."""
    import torch
    import torch._inductor.config

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    module: Any = torch.load(path, weights_only=False)
    if compiled:
        torch._inductor.config.freezing = True
        module = torch.compile(module, dynamic=False)

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(images)).numpy()

    return run


class Way(NamedTuple):
    """A way to run a net: its file, and how it is opened."""

    file: str
    open: Callable[[Path], Run]


# PyTorch's names begin with its own, and names of what computes in less than float32 have that in them.
PEER, LOWER = "PyTorch", ("bfloat16", "int8")
WAYS = {
    "Keras, `predict`": Way("net.keras", keras_predict),
    "SavedModel, `--no-fold`": Way("plain", exported),
    "SavedModel": Way("folded", exported),
    "LiteRT": Way("net.tflite", exported),
    "ONNX Runtime": Way("net.onnx", exported),
    "OpenVINO float32": Way("float32.xml", exported),
    "OpenVINO bfloat16": Way("bfloat16.xml", exported),
    "OpenVINO int8": Way("int8.xml", exported),
    f"{PEER} float32, eager": Way("float32.pt", partial(torch_module, compiled=False)),
    f"{PEER} float32, compiled": Way("float32.pt", partial(torch_module, compiled=True)),
    f"{PEER} bfloat16, eager": Way("bfloat16.pt", partial(torch_module, compiled=False)),
    f"{PEER} bfloat16, compiled": Way("bfloat16.pt", partial(torch_module, compiled=True)),
}


def prepare(pipe: Connection, case: Case, wanted: set[str], folder: Path) -> None:
    """Write the files that are wanted, what all are checked with, and test images; send why a file is missing."""
    import torch
    from int8 import net
    from torch_twin import twin

    import zoo
    from zoo.errors import Differs, InputError

    model, trial = net(case.net)
    pictures = [np.asarray(each) for each in trial.test[:4]]
    # One image, as what is timed first: every other shape would be compiled anew.
    image = pictures[0]
    if case.side:
        model = zoo.convolutionalize(model)
        image = np.pad(image, [*((0, case.side - side) for side in image.shape[:2]), (0, 0)], mode="symmetric")
    np.savez(folder / "check.npz", images=image[None], scores=model.predict(image[None], verbose=0))
    if trial.labels is not None:
        np.savez(folder / "test.npz", images=np.asarray(trial.test), labels=trial.labels)
    if "net.keras" in wanted:
        zoo.save(model, folder / "net.keras")
    for precision in ("float32", "bfloat16"):
        if f"{precision}.pt" in wanted:
            torch.save(twin(model, getattr(torch, precision)), folder / f"{precision}.pt")
    files: dict[str, dict[str, Any]] = {
        "plain": {"format": "saved_model", "fold": False},
        "folded": {"format": "saved_model"},
        "net.tflite": {"format": "litert"},
        "net.onnx": {"format": "onnx"},
        "float32.xml": {"format": "openvino"},
        "bfloat16.xml": {"format": "openvino", "precision": "bfloat16"},
        "int8.xml": {"format": "openvino", "precision": "int8", "trial": trial},
    }
    missing = {}
    for name in wanted & set(files):
        given = files[name]
        try:
            zoo.export(model, folder / name, images=() if "trial" in given else pictures, **given)
        except (InputError, Differs) as error:
            missing[name] = in_short(error)
    pipe.send(missing)


def in_short(error: Exception) -> str:
    """An error in a line that fits into a table."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:120].replace("|", "/")


def work(pipe: Connection, way: Way, case: Case, folder: Path) -> None:
    """A way's process: sends its error and best batch, or why there are none; then does what each message asks for.

    A number is a batch, which is run for a turn: the seconds of each call are sent. "test": the share of right answers.
    """
    from zoo.scores import relative_error

    try:
        run = way.open(folder / way.file)
        with np.load(folder / "check.npz") as check:
            error = relative_error(run(check["images"]), check["scores"])
            shape = (max(case.batches), *check["images"].shape[1:])
        noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        costs = {}
        for batch in case.batches:
            run(noise[:batch])
            costs[batch] = min(seconds(run, noise[:batch]) for _ in range(3)) / batch
    except Exception as failed:  # of whatever kind each runtime has
        pipe.send(in_short(failed))
        return
    best = min(costs, key=costs.get)
    pipe.send((error, best))
    while (asked := pipe.recv()) is not None:
        if asked == "test":
            with np.load(folder / "test.npz") as test:
                images, labels = test["images"], test["labels"]
            whole = range(0, len(images) // best * best, best)
            scores = [run(images[first : first + best]) for first in whole]
            if rest := len(images) % best:
                scores.append(run(images[-best:])[-rest:])
            pipe.send(float((np.concatenate(scores).argmax(-1) == labels).mean()))
            continue
        end, taken = time.perf_counter() + TURN, []
        while len(taken) < 3 or time.perf_counter() < end:
            taken.append(seconds(run, noise[:asked]))
        pipe.send(taken)


def compare(name: str, rounds: int, folder: Path) -> list[dict]:
    """The rows of a case."""
    case = CASES[name]
    pipe, process = start(prepare, case, {way.file for way in WAYS.values()}, folder)
    missing = pipe.recv()
    process.join()
    workers, found = {}, {}
    for each, way in WAYS.items():
        if way.file in missing:
            found[each] = missing[way.file]
            continue
        worker = start(work, way, case, folder)
        found[each] = worker[0].recv()
        print(f"  {each}: {found[each]}", flush=True)
        if isinstance(found[each], str):
            worker[1].join()
            continue
        if not any(lower in each for lower in LOWER) and found[each][0] > TOLERANCE:
            raise SystemExit(f"{name}: {each}: differs from Keras by {found[each][0]:.1e}; accepted: {TOLERANCE}")
        workers[each] = worker

    def ask(each: str, what: object) -> Any:
        workers[each][0].send(what)
        return workers[each][0].recv()

    latency: dict[str, list[float]] = {each: [] for each in workers}
    image: dict[str, list[float]] = {each: [] for each in workers}
    for _ in range(rounds):
        for each in workers:
            best = found[each][1]
            latency[each].append(statistics.median(ask(each, 1)))
            image[each].append(latency[each][-1] if best == 1 else statistics.median(ask(each, best)) / best)
    trained = (folder / "test.npz").exists()
    accuracy = {each: ask(each, "test") for each in workers} if trained else {}
    for pipe, process in workers.values():
        pipe.send(None)
        process.join()
    return [row(name, each, found[each], latency, image, accuracy) for each in WAYS]


def row(name: str, way: str, found: Any, latency: dict, image: dict, accuracy: dict[str, float]) -> dict:
    """A row of the table; `latency` and `image` are seconds a round, by way."""
    shown = {"net": f"`{name}`", "way": f"{way}: not run ({found})" if isinstance(found, str) else way}
    ran = way in latency
    best = [fastest(times) for times in (latency, image)]
    return shown | {
        "latency, ms": spread([1e3 * each for each in latency[way]]) if ran else None,
        f"against {PEER}": ratio(best[0], latency[way]) if ran else None,
        "images/s": spread([1 / each for each in image[way]]) if ran else None,
        "batch": found[1] if ran else None,
        f"images/s against {PEER}": ratio(best[1], image[way]) if ran else None,
        "error": float(f"{found[0]:.1g}") if ran else None,
        "accuracy, %": round(100 * accuracy[way], 2) if way in accuracy else None,
    }


def fastest(times: dict[str, list[float]]) -> list[float] | None:
    """The times of that way in PyTorch which is fastest by its median."""
    peers = [each for way, each in times.items() if way.startswith(PEER)]
    return min(peers, key=statistics.median) if peers else None


def ratio(base: list[float] | None, own: list[float]) -> Any:
    """How many times as fast as `base`, within each round."""
    return base and spread([their / our for their, our in zip(base, own, strict=True)])


def main() -> None:
    """Compare the ways of every net, print the tables and write their records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"default: all of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add_option(parser)
    options = parser.parse_args()
    if unknown := set(options.nets) - set(CASES):
        parser.error(f"nets: received {', '.join(sorted(unknown))}; accepted: {', '.join(CASES)}")
    if importlib.util.find_spec("torch") is None:
        parser.error("needs torch, whose CPU build will do; accepted: pip install -e '.[benchmarks]'")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    for name in options.nets or CASES:
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            rows = compare(name, options.rounds, Path(folder))
        record = options.record and options.record.with_stem(f"{options.record.stem}_{name}")
        report(rows, record, f"{name}, {options.threads} threads, by turns", options.rounds)


if __name__ == "__main__":
    main()
