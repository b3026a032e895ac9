"""One pass of a converted classifier over an image, against the same classifier on every cell's crop.

    python benchmarks/one_pass.py [--models vgg16 resnet50 ...] [--engines keras keras-plain openvino ...] [--rounds 5]

Both sides run in the same engine, in the same process, with the same threads and precision; `keras-plain` is Keras's
own predict_on_batch on the converted model as it stands, `keras` the engine of zoo.engines. The crops are cut
beforehand and run at their best batch size. A round times every engine's pass and crops one after the other, so that
what else the machine does hits all of them; the table gives the median of the rounds, least and largest in brackets.
Where there are more crops than --crops, that many are timed and their time is scaled to all of them. `limit` is the
ratio of the multiply-adds. Every model runs in a process of its own, on --threads processors.

VGG-16 is keras.applications' with random weights (Flatten, 4096, 4096, 1000) at 384 x 384, which gives 6 x 6 cells; the
others are the catalogue's at 1,024 x 1,024.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

from record import add_option, report, spread
from turns import on_threads, rerun, seconds

MODELS = {
    "vgg16": 384,
    "resnet50": 1024,
    "nin_cifar10_bn": 1024,
    "resnet29_cifar10": 1024,
    "inception_cifar10": 1024,
}
# None: Keras's own way, the model as it stands.
ENGINES = {
    "keras": ("keras", None),
    "keras-plain": None,
    "openvino": ("openvino", "float32"),
    "openvino-bf16": ("openvino", "bfloat16"),
}
# Pixels of all the crops in one batch, from one crop of 224 x 224 to 36 of them.
BATCHES = (1, 4, 9, 18, 36)


def measure(name: str, side: int, engine_names: list[str], rounds: int, most_crops: int, record: Path | None) -> None:
    """Time one model in every engine, print its rows and write its record."""
    import keras
    import numpy as np

    import zoo
    from zoo.engines.factory import make_engine
    from zoo.network.graph import run_steps, trace
    from zoo.network.network import Network
    from zoo.scores import relative_error

    model = keras.applications.VGG16(weights=None) if name == "vgg16" else zoo.build(name)
    fcn = zoo.convolutionalize(model)
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.float32)
    placed = zoo.geometry(fcn, image.shape[:2])
    rows, columns = placed.grid_shape(side, side)
    cells = rows * columns
    scale = placed.window[0] ** 2 / 224**2
    batches = sorted({max(round(batch / scale), 1) for batch in BATCHES} | {1})
    timed = min(cells, max(most_crops, round(most_crops / scale)))
    batches = [batch for batch in batches if batch <= timed] or [timed]
    # A padded net's first and last crops may reach beyond the image: the timing takes the nearest crop inside.
    picked = np.linspace(0, cells - 1, timed).astype(int)
    corners = np.stack(np.divmod(picked, columns), -1) * placed.stride + np.array(placed.offset)
    corners = corners.clip(0, side - placed.window[0])
    crops = np.stack([image[y : y + placed.window[0], x : x + placed.window[1]] for y, x in corners])
    limit = zoo.describe(model).macs * cells / zoo.describe(fcn, image_size=(side, side)).macs
    # Called as it is, Keras keeps every layer's output to the end: 20 GB of them for the Inception net.
    graph = trace(fcn)
    (output,) = graph.outputs
    made = run_steps(graph, {graph.inputs[0]: keras.ops.convert_to_tensor(image[None])}, [output])
    reference = keras.ops.convert_to_numpy(made[output])

    def run_crops(engine: Callable, batch: int, count: int) -> None:
        for first in range(0, count - batch + 1, batch):
            engine(crops[first : first + batch])

    engines, best, errors = {}, {}, {}
    for key in engine_names:
        choice = ENGINES[key]
        dense, single = (
            make_engine(Network.of(each), *choice) if choice else each.predict_on_batch for each in (fcn, model)
        )
        engines[key] = dense, single
        errors[key] = relative_error(dense(image[None]), reference)
        costs = {}
        for batch in batches:
            single(crops[:batch])
            costs[batch] = min(seconds(lambda b=batch: single(crops[:b])) for _ in range(2)) / batch  # noqa: B023
        best[key] = min(costs, key=costs.get)
    passes: dict[str, list[float]] = {key: [] for key in engine_names}
    crop_times: dict[str, list[float]] = {key: [] for key in engine_names}
    for _ in range(rounds):
        for key, (dense, single) in engines.items():
            passes[key].append(statistics.median(seconds(lambda: dense(image[None])) for _ in range(3)))  # noqa: B023
            count = timed // best[key] * best[key]
            took = seconds(lambda: run_crops(single, best[key], count))  # noqa: B023
            crop_times[key].append(took / count * cells)
    table = []
    for key in engine_names:
        ratios = [crop / whole for crop, whole in zip(crop_times[key], passes[key], strict=True)]
        faster = [
            [base / own for base, own in zip(times[engine_names[0]], times[key], strict=True)]
            for times in (passes, crop_times)
        ]
        table.append(
            {
                "model": name,
                "engine": key,
                "image": side,
                "cells": f"{rows}×{columns}",
                "one pass, s": spread(passes[key]),
                "crops, s": spread(crop_times[key]),
                "crops / one pass": spread(ratios),
                "limit": round(limit, 1),
                "batch": best[key],
                "crops timed": timed,
                f"one pass against {engine_names[0]}": spread(faster[0]),
                f"crops against {engine_names[0]}": spread(faster[1]),
                "relative error": float(f"{errors[key]:.2g}"),
            }
        )
    report(table, record and record.with_stem(f"{record.stem}_{name}"), name, rounds)


def main() -> None:
    """Run every model in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--size", type=int, help="side of the image in pixels; default: 384 for VGG-16, else 1,024")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crops", type=int, default=36, help="crops of 224 x 224, or as many pixels, timed a round")
    add_option(parser)
    options = on_threads(parser)
    if options.case:
        from zoo.training import start

        start(0, True)
        (name,) = options.models
        measure(name, options.size or MODELS[name], options.engines, options.rounds, options.crops, options.record)
        return
    print(f"{options.rounds} rounds, {options.threads} threads on both sides\n")
    for name in options.models:
        words = ["--models", name, "--engines", *options.engines]
        words += ["--rounds", str(options.rounds), "--crops", str(options.crops), "--threads", str(options.threads)]
        words += ["--size", str(options.size)] if options.size else []
        words += ["--record", str(options.record)] if options.record else []
        rerun(__file__, *words)


if __name__ == "__main__":
    main()
