"""Seconds for 10,000 x 10,000 pixels against the overlap of windows: MONAI's crops, and one pass at the net's stride.

    pip install monai --no-deps   (and torch)
    python benchmarks/overlap.py [--model scenes_blood_cells] [--rounds 5] --record docs/records/overlap.json
    python docs/overlap_figure.py

The same weights, image and threads; each case is a process that stays, and one at a time works, in turn, several
rounds. Timed on 1,000 x 1,000 pixels of a photograph, and scaled by the number of windows, or of cells, that there are
in 10,000 x 10,000. Beside it a pass of the zoo over 4,000 x 4,000 pixels, scaled likewise, says whether that is honest.

MONAI's `sliding_window_inference` merges what overlapping windows give to one map and averages it, so it cannot hand
out one window's scores: they are kept as its predictor gives them, in its order of windows, and their merging, of one
position a window, is part of the time. A window of the one is shared with the other where both begin at the same
pixel; `difference` is the largest there, relative to the largest score of the zoo's pass by Keras.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from record import add_option, report, spread
from turns import seconds, start

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The side that all is scaled to, and how many times the timed one the larger side is whose pass is scaled too.
LARGE, TIMES = 10_000, 4
# Of the window; beside them the overlap that the net's own stride gives.
OVERLAPS = (0.0, 0.5, 0.75)
BATCHES = (16, 64, 256)
MONAI = {"MONAI, PyTorch float32": "float32", "MONAI, PyTorch bfloat16": "bfloat16"}
# The engine and the precision, None where the exported file says both.
ZOO: dict[str, tuple[str, str | None] | None] = {
    "zoo, one pass by Keras": ("keras", None),
    "zoo, one pass by OpenVINO, exported": None,
    "zoo, one pass by OpenVINO, bfloat16": ("openvino", "bfloat16"),
}
# From the number of times that the image's side is enlarged, and the stride of windows, to scores (rows, columns, K).
Scores = Callable[[int, int], np.ndarray]


def photograph(side: int) -> np.ndarray:
    """A photograph as a square, (side, side, 3) of uint8: mirrored at its borders, or cut."""
    from sklearn.datasets import load_sample_image

    image = load_sample_image("china.jpg")[:side, :side]
    return np.pad(image, [*((0, side - each) for each in image.shape[:2]), (0, 0)], mode="symmetric")


def windows(side: int, window: int, stride: int) -> int:
    """How many windows there are along a side, all of them inside it."""
    return (side - window) // stride + 1


def strides(window: int, own: int) -> list[int]:
    """Pixels between windows: of each overlap, and the net's own."""
    return [*(round(window * (1 - overlap)) for overlap in OVERLAPS), own]


def shared(stride: int, own: int) -> int:
    """Every how manieth window, at a stride, begins where one at the net's own stride does."""
    return int(np.lcm(stride, own)) // stride


def prepare(pipe: Connection, name: str, folder: Path) -> None:
    """Write the twins, the conversion and its export; send the window and the stride."""
    import torch
    from torch_twin import twin

    import zoo
    from zoo.card import attach, card

    # Both sides are given pixels as the net was trained on; by its card a scan would first make the image smaller.
    model = zoo.load(name)
    model = attach(model, card(model).model_copy(update={"scale": None, "pixel_size": None}))
    for precision in ("float32", "bfloat16"):
        torch.save(twin(model, getattr(torch, precision)), folder / f"{precision}.pt")
    fcn = zoo.convolutionalize(model)
    zoo.save(fcn, folder / "fcn.keras")
    zoo.export(fcn, folder / "fcn.xml", format="openvino")
    placed = zoo.geometry(fcn)
    pipe.send((placed.window[0], placed.stride[0]))


def monai(precision: str, window: int, own: int, side: int, folder: Path) -> Scores:
    """MONAI's sliding window over the twin, in the batches that are fastest at an overlap of half."""
    import torch
    from monai.inferers import sliding_window_inference

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    module: Any = torch.load(folder / f"{precision}.pt", weights_only=False)
    pixels = torch.from_numpy(photograph(side)).permute(2, 0, 1)[None].float()
    kept: list[torch.Tensor] = []

    def predict(crops: torch.Tensor) -> torch.Tensor:
        kept.append(module(crops.permute(0, 2, 3, 1)))
        return kept[-1][:, :, None, None]

    def run(batch: int, times: int, stride: int) -> np.ndarray:
        assert times == 1
        kept.clear()
        count = windows(side, window, stride)
        inside = (count - 1) * stride + window
        # MONAI rounds the stride down, and 40 * (1 - 0.9) is less than 4.
        overlap = max(1 - (stride + 0.5) / window, 0)
        with torch.inference_mode():
            sliding_window_inference(pixels[..., :inside, :inside], (window, window), batch, predict, overlap)
        return torch.cat(kept).numpy().reshape(count, count, -1)

    half = strides(window, own)[1]
    run(BATCHES[0], 1, half)
    costs = {batch: seconds(partial(run, batch), 1, half) for batch in BATCHES}
    return partial(run, min(costs, key=costs.get))


def zoo_scan(chosen: tuple[str, str | None] | None, side: int, folder: Path) -> Scores:
    """The zoo's scan at the net's own stride, of the converted model, or of its export."""
    import zoo
    from zoo.exported.network import ExportedNetwork
    from zoo.large_images import scanner_of
    from zoo.scanning.options import Options

    if chosen is None:
        scan = scanner_of(ExportedNetwork.at(folder / "fcn.xml"), Options())
    else:
        scan = scanner_of(zoo.load(folder / "fcn.keras"), Options(engine=chosen[0], precision=chosen[1]))
    images = {times: photograph(times * side) for times in (1, TIMES)}
    return lambda times, stride: scan(images[times]).scores


def work(pipe: Connection, make: Callable[[Path], Scores], first: int, folder: Path) -> None:
    """A case's process: at each (times, stride) sends the seconds; at ("scores", stride) the scores."""
    run = make(folder)
    run(1, first)
    pipe.send(None)
    while (asked := pipe.recv()) is not None:
        what, stride = asked
        pipe.send(run(1, stride) if what == "scores" else seconds(run, what, stride))


def compare(name: str, side: int, rounds: int, folder: Path) -> list[dict]:
    """The rows: each case at each of its overlaps."""
    pipe, process = start(prepare, name, folder)
    window, own = pipe.recv()
    process.join()
    made = {case: partial(monai, precision, window, own, side) for case, precision in MONAI.items()}
    made |= {case: partial(zoo_scan, chosen, side) for case, chosen in ZOO.items()}
    at = {case: strides(window, own) if case in MONAI else [own] for case in made}
    workers = {}
    for case, make in made.items():
        workers[case] = start(work, make, at[case][0], folder)
        workers[case][0].recv()
        print(f"  {case}: ready", flush=True)

    def ask(case: str, what: int | str, stride: int) -> Any:
        workers[case][0].send((what, stride))
        return workers[case][0].recv()

    times: dict[tuple[str, int], list[float]] = {(case, stride): [] for case in at for stride in at[case]}
    for _ in range(rounds):
        for case, stride in times:
            times[case, stride].append(ask(case, 1, stride))
    wanted = ask(next(iter(ZOO)), "scores", own)
    rows = []
    for case, stride in times:
        count, wanted_count = (windows(each, window, stride) ** 2 for each in (side, LARGE))
        scaled = [each / count * wanted_count for each in times[case, stride]]
        larger = None
        if case in ZOO:
            measured = statistics.median(ask(case, TIMES, own) for _ in range(3))
            larger = float(f"{measured / windows(TIMES * side, window, own) ** 2 * wanted_count:.3g}")
        rows.append(
            {
                "case": case,
                "overlap, %": round(100 * (1 - stride / window)),
                "windows": count,
                "seconds": spread(times[case, stride]),
                f"seconds for {LARGE:,}²": spread(scaled),
                f"the same by {TIMES * side:,}²": larger,
                "difference": difference(ask(case, "scores", stride), wanted, stride, own),
            }
        )
    for pipe, process in workers.values():
        pipe.send(None)
        process.join()
    return rows


def difference(scores: np.ndarray, wanted: np.ndarray, stride: int, own: int) -> float:
    """The largest difference on shared windows, relative to the largest of the `wanted` scores there."""
    from zoo.scores import relative_error

    every = shared(stride, own)
    theirs = scores[::every, ::every]
    step = every * stride // own
    ours = wanted[::step, ::step][: theirs.shape[0], : theirs.shape[1]]
    return float(f"{relative_error(theirs, ours):.1g}")


def main() -> None:
    """Time every case, print the table and write its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scenes_blood_cells", help="a shipped net of colour images without padding")
    parser.add_argument("--size", type=int, default=1000, help="side of the image in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add_option(parser)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(options.model, options.size, options.rounds, Path(folder))
    report(
        rows, options.record, f"{options.model}, {options.size:,} x {options.size:,} pixels, by turns", options.rounds
    )


if __name__ == "__main__":
    main()
