"""zoo.engines against MONAI's sliding_window_inference: the same weights, image, grid of windows and threads.

    pip install monai --no-deps   (and torch)
    python benchmarks/sliding.py [--model nin_cifar10_bn] [--size 256] [--rounds 5]

What is compared: the scores of a classifier for every window of the grid that its conversion answers for. MONAI merges
the outputs of overlapping windows to one map of the image's size and averages where they overlap, so it cannot hand
out one window's scores; here each window's class scores, (B, K, 1, 1), go through its merging, which costs it next to
nothing, and they are kept as they come from the predictor, in MONAI's order of windows. `loop` is the same torch
network on the same windows in a plain loop, with no merging at all. The torch network has our weights, and its scores
on the windows are checked against the Keras model's own before the timing.

The zoo's pass sees beyond the windows' borders where a padded net has zeros, so its scores are equal to the windows'
for a padding-free net only (--padding valid, the default here); the work is the same either way.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from record import add_option, report, spread
from turns import on_threads, rerun, seconds


def measure(name: str, padding: str, side: int, rounds: int, batches: list[int], record: Path | None) -> None:
    """Check that all three give the same scores, time them in turn, print the rows and write their record."""
    import torch
    from monai.data.utils import dense_patch_slices
    from monai.inferers import sliding_window_inference
    from torch_twin import twin

    import zoo
    from zoo.engines.factory import make_engine
    from zoo.network.network import Network
    from zoo.scores import relative_error

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    generator = np.random.default_rng(0)
    model = zoo.build(name, padding=padding)
    for weight in model.weights:
        if "moving" in weight.path or "gamma" in weight.path or "beta" in weight.path:
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    fcn = zoo.convolutionalize(model)
    placed = zoo.geometry(fcn)
    (window, _), (stride, _) = placed.window, placed.stride
    side = window + (side - window) // stride * stride
    rows, columns = placed.grid_shape(side, side)
    image = generator.integers(0, 256, (side, side, 3)).astype(np.float32)
    network, engine = twin(model), make_engine(Network.of(fcn))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(memory_format=torch.channels_last)
    slices = dense_patch_slices((side, side), (window, window), (stride, stride))
    assert len(slices) == rows * columns, (len(slices), rows, columns)
    kept: list[torch.Tensor] = []

    def predict(windows: torch.Tensor) -> torch.Tensor:
        kept.append(network(windows.permute(0, 2, 3, 1)))
        return kept[-1][:, :, None, None]

    def monai(batch: int) -> np.ndarray:
        kept.clear()
        with torch.inference_mode():
            sliding_window_inference(pixels, (window, window), batch, predict, overlap=1 - stride / window)
        return torch.cat(kept).numpy()

    def loop(batch: int) -> np.ndarray:
        made = []
        with torch.inference_mode():
            for first in range(0, len(slices), batch):
                windows = torch.cat([pixels[:, :, y, x] for y, x in slices[first : first + batch]])
                made.append(network(windows.permute(0, 2, 3, 1)))
        return torch.cat(made).numpy()

    crops = np.stack([image[y, x] for y, x in slices])
    wanted = np.concatenate([np.asarray(model(crops[i : i + 64], training=False)) for i in range(0, len(crops), 64)])
    cases: dict[str, Callable[[], np.ndarray]] = {"zoo, one pass": lambda: engine(image[None]).reshape(wanted.shape)}
    others = {
        "the same net in PyTorch, a loop over batches of": loop,
        "MONAI `sliding_window_inference`, batches of": monai,
    }
    for case, kind in others.items():
        costs = {batch: seconds(kind, batch) for batch in batches}
        best = min(costs, key=costs.get)
        cases[f"{case} {best}"] = lambda kind=kind, best=best: kind(best)
    errors = {case: relative_error(run(), wanted) for case, run in cases.items()}
    times: dict[str, list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case, run in cases.items():
            times[case].append(seconds(run))
    print(f"{name}, padding {padding}, {side} x {side}, {len(slices)} windows of {window} every {stride} pixels\n")
    table = []
    for case, own in times.items():
        shares = spread([a / b for a, b in zip(own, times["zoo, one pass"], strict=True)])
        row = {"case": case, "seconds": spread(own), "against one pass": shares}
        table.append(row | {"error to the Keras model on each window": float(f"{errors[case]:.2g}")})
    report(table, record, f"{name} model.padding={padding}", rounds)


def main() -> None:
    """Run the comparison in a process of its own, on --threads processors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nin_cifar10_bn")
    parser.add_argument("--padding", choices=("valid", "same"), default="valid")
    parser.add_argument("--size", type=int, default=256, help="side of the image in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256])
    add_option(parser)
    options = on_threads(parser)
    if options.case:
        from zoo.training import start

        start(0, True)
        measure(options.model, options.padding, options.size, options.rounds, options.batches, options.record)
        return
    rerun(__file__, *sys.argv[1:])


if __name__ == "__main__":
    main()
