"""Where a bottleneck begins to pay: ResNets of 8, 20 and 50 layers with and without one, at equal multiply-adds.

    python benchmarks/depth.py -o DIR [--seeds 2] [--epochs 16] [--data cifar10.npz] [--only BLOCK DEPTH SEED]
    python benchmarks/depth.py -o DIR --time

All have three stages at 32 x 32, 16 x 16 and 8 x 8 pixels, each twice as wide as the one before; a bottleneck is 1x1,
3x3, 1x1 with a quarter of the channels inside, a basic block two 3x3. Blocks are spread evenly over the stages, the
later ones first. Widths are found by bisection, so that every net has the multiply-adds of the basic one of 20 layers
that is 16 channels wide at first. Trained alike on all of CIFAR-10 with shifts and flips.

The first command writes a line a run to DIR/results.jsonl; runs that are there are not run again. With all of them
there, `--time` measures a training step of each net on this machine, prints the table and draws DIR/depth.png.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TypeVar

import turns
from record import add_option, report, spread

BLOCKS = {"basic": 2, "bottleneck": 3}  # convolutions a block
DEPTHS = (8, 20, 50)
# The first stage's channels of the net whose multiply-adds all have.
BASE_WIDTH, BASE_DEPTH = 16, 20
ROUNDS, STEPS, IMAGES = 5, 4, 128
Key = TypeVar("Key")


def model_section(block: str, depth: int, width: int) -> dict:
    """A net whose 3x3 convolutions have `width` channels in the first stage."""
    blocks = (depth - 2) // BLOCKS[block]
    stages = []
    for index in range(3):
        inner = width * 2**index
        channels = {"width": inner, "filters": 4 * inner} if block == "bottleneck" else {"filters": inner}
        count = (blocks + index) // 3
        stages += [{"blocks": count, **channels, "stride": 2 if index else 1}] if count else []
    return {
        "family": "resnet",
        "variant": "v1_5" if block == "bottleneck" else "v1",  # the stride in a 3x3 in both
        "block": block,
        "num_classes": 10,
        "image_size": [32, 32],
        "channels": 3,
        "preprocess": {"mean": [125.3, 123.0, 113.9], "std": [63.0, 62.1, 66.7]},
        "stem": {"kernel": 3, "filters": width},
        "stages": stages,
    }


def built(block: str, depth: int):
    """The net of this kind whose multiply-adds are nearest to those wanted."""
    import zoo
    from zoo.config import model_config

    def made(kind: str, layers: int, width: int):
        return zoo.build(model_config(model_section(kind, layers, width), f"{kind}_{layers}"))

    def macs(width: int) -> int:
        return zoo.describe(made(block, depth, width)).macs

    wanted = zoo.describe(made("basic", BASE_DEPTH, BASE_WIDTH)).macs
    low, high = 2, 64
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if macs(middle) < wanted else (low, middle)
    width = min((low, high), key=lambda each: abs(macs(each) - wanted))
    return made(block, depth, width), model_section(block, depth, width)


def config_of(section: dict, options: argparse.Namespace, seed: int):
    """The experiment of one run."""
    from zoo.config import Config

    data = {"name": "npz", "dir": str(options.data)} if options.data else {"name": "cifar10"}
    return Config.model_validate(
        {
            "name": "depth",
            "seed": seed,
            "data": {**data, "validation": 0},
            "model": section,
            "train": {
                "epochs": options.epochs,
                "batch_size": IMAGES,
                "optimizer": {
                    "name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 2.0e-3,
                },
                "precision": "auto",
                "warmup": 0.2,
                "label_smoothing": 0.1,
                "augment": {"shift": 2, "flip": True},
            },
            "canvas": None,
        }
    )  # fmt: skip


def measure(block: str, depth: int, seed: int, options: argparse.Namespace) -> dict:
    """Train one net, and report what it reached."""
    import zoo
    from zoo import data
    from zoo.evaluation import evaluate
    from zoo.training import start, train

    start(seed, True)
    model, section = built(block, depth)
    config = config_of(section, options, seed)
    dataset = data.load(config)
    with tempfile.TemporaryDirectory() as folder:
        train(model, dataset, config, Path(folder))
    return {
        "block": block,
        "depth": depth,
        "seed": seed,
        "epochs": options.epochs,
        "accuracy": evaluate(model, dataset.test, dataset.class_names).accuracy,
        "width": section["stem"]["filters"],
        "macs": zoo.describe(model).macs,
        "params": model.count_params(),
    }


def compiled(model, recipe, precision: str) -> Callable[[], object]:
    """A training step of `IMAGES` images, which has run once."""
    import numpy as np

    from zoo.training.precision import training_copy
    from zoo.training.recipe import trainer

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 32, 32, 3)).astype(np.float32)
    labels = np.eye(10, dtype=np.float32)[rng.integers(0, 10, IMAGES)]
    step = trainer(training_copy(model, precision), recipe, (0.0, 0.0, 0.0), 1000).train_on_batch
    step(images, labels)
    return lambda: step(images, labels)


def by_turns(steps: dict[Key, Callable[[], object]]) -> dict[Key, list[float]]:
    """Milliseconds an image of every step: rounds by turns, each of some calls."""
    taken: dict[Key, list[float]] = {key: [] for key in steps}
    for _, (key, step) in product(range(ROUNDS), steps.items()):
        seconds = sum(turns.seconds(step) for _ in range(STEPS))
        taken[key].append(1e3 * seconds / STEPS / IMAGES)
    return taken


def step_times(options: argparse.Namespace) -> dict[tuple[str, int], list[float]]:
    """Milliseconds an image of a training step, by net."""
    from zoo.training import start
    from zoo.training.precision import resolve

    start(0, True)
    steps = {}
    for block, depth in product(BLOCKS, DEPTHS):
        model, section = built(block, depth)
        recipe = config_of(section, options, 0).train
        steps[block, depth] = compiled(model, recipe, resolve(recipe.precision))
    return by_turns(steps)


def table(rows: list[dict], times: dict[tuple[str, int], list[float]]) -> list[dict]:
    """A row a net."""
    nets = []
    for (block, depth), milliseconds in times.items():
        runs = [row for row in rows if (row["block"], row["depth"]) == (block, depth)]
        nets.append(
            {
                "blocks": "bottlenecks, 1×1 3×3 1×1" if block == "bottleneck" else "two 3×3",
                "layers": depth,
                "channels of the first 3×3": runs[0]["width"],
                "multiply-adds, M": round(runs[0]["macs"] / 1e6, 1),
                "parameters": runs[0]["params"],
                "test accuracy, %": [round(100 * row["accuracy"], 2) for row in runs],
                "training, ms an image": spread(milliseconds),
            }
        )
    return nets


def draw(rows: list[dict], path: Path) -> None:
    """Test accuracy over depth, a line a kind of block; every seed is a dot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from zoo.figures import MARKERS
    from zoo.scanning.overlay import palette

    figure, axis = plt.subplots(figsize=(5.5, 4), layout="constrained")
    titles = {"basic": "two 3×3", "bottleneck": "1×1, 3×3, 1×1"}
    for (block, title), colour, marker in zip(titles.items(), palette(len(titles)), MARKERS, strict=False):
        runs = [row for row in rows if row["block"] == block]
        means = [statistics.mean(100 * row["accuracy"] for row in runs if row["depth"] == depth) for depth in DEPTHS]
        axis.plot(DEPTHS, means, color=colour)
        depths, shares = [row["depth"] for row in runs], [100 * row["accuracy"] for row in runs]
        axis.plot(depths, shares, marker, color=colour, markeredgecolor="black", label=title)
    axis.set(xlabel="layers", ylabel="test accuracy, %", xscale="log", xticks=DEPTHS, xticklabels=DEPTHS)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(title="blocks, at equal multiply-adds")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run what is missing, or measure the times and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--data", type=Path, help="an .npz file of CIFAR-10 instead of tensorflow-datasets")
    parser.add_argument("--only", nargs=3, metavar=("BLOCK", "DEPTH", "SEED"), help="this run alone")
    parser.add_argument("--time", action="store_true", help="measure times, print the table, draw the figure")
    add_option(parser)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "results.jsonl"
    wanted = list(product(BLOCKS, DEPTHS, range(options.seeds)))
    if options.only:
        block, depth, seed = options.only
        wanted = [(block, int(depth), int(seed))]
    there = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    rows = [row for row in there if row["epochs"] == options.epochs]
    done = {(row["block"], row["depth"], row["seed"]) for row in rows}
    if options.time:
        if missing := [each for each in wanted if each not in done]:
            parser.error(f"--time: not trained yet: {missing}")
        nets = table(rows, step_times(options))
        report(nets, options.record, "benchmarks/depth.py", 10_000, tuple(range(options.seeds)))
        draw(rows, options.output / "depth.png")
        return
    for each in wanted:
        if each not in done:
            row = measure(*each, options)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
