"""What a bottleneck buys, and what it loses: small nets on CIFAR-10 with and without their 1x1 reductions.

    python benchmarks/bottlenecks.py -o DIR [--families resnet inception] [--seeds 3] [--images 10000] [--epochs 10]

Each family is one small net with 1x1 reductions before its spatial convolutions, and changes of it:

- linear reduction: no ReLU between the reduction and the spatial convolution (the normalisation stays);
- random reduction: the reductions' kernels stay as they were drawn, a fixed random projection of the channels;
- no reduction, equal multiply-adds: the spatial convolutions read all channels, and every layer is narrower for it;
- no reduction, equal width: the spatial convolutions read all channels, and blocks give as many as before.

In a ResNet without reductions a block is two 3x3 convolutions, in an Inception net the 3x3 and the 5x5 read the
module's input. All are trained alike, from seeds 0 to N - 1, on a stratified part of the training images without
augmentation, so that the gap between training and test accuracy shows; the test images are all 10,000. Accuracies are
those after the last step.

DIR gets `results.jsonl`, a line a run. Runs that are there are not run again, so the command goes on where it was
stopped. docs/bottlenecks_figure.py draws the records.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from record import add_option, deviation, report

TITLES = {
    "reduced": "1x1 reductions",
    "linear": "linear reductions",
    "random": "random reductions",
    "equal_macs": "none, equal multiply-adds",
    "equal_width": "none, equal width",
}
COMMON = {"num_classes": 10, "image_size": [32, 32], "channels": 3}
PREPROCESS = {"mean": [125.3, 123.0, 113.9], "std": [63.0, 62.1, 66.7]}


def resnet(reduced: bool, scale: float = 1) -> dict:
    """A ResNet v1.5 of two stages of two blocks; `scale` multiplies the channels of one without reductions."""
    stages = []
    for filters in (64, 128):
        row = {"blocks": 2, "filters": round(filters * scale), "stride": 2}
        stages.append(row | ({"width": filters // 4} if reduced else {}))
    block = {"variant": "v1_5"} if reduced else {"variant": "v1", "block": "basic"}
    stem = {"kernel": 3, "stride": 1, "filters": 32 if reduced else round(32 * scale)}
    return {"family": "resnet", **COMMON, "preprocess": PREPROCESS, **block, "stem": stem, "stages": stages}


def inception(reduced: bool, scale: float = 1) -> dict:
    """Three modules of GoogLeNet's table 1, 3a and 3b at a quarter of their width; `scale` as for the ResNet."""
    table = [
        {"conv1": 16, "reduce3": 24, "conv3": 32, "reduce5": 4, "conv5": 8, "pool_proj": 8},
        {"conv1": 32, "reduce3": 32, "conv3": 48, "reduce5": 8, "conv5": 24, "pool_proj": 16, "pool": "max 3x3/2"},
        {"conv1": 48, "reduce3": 24, "conv3": 52, "reduce5": 4, "conv5": 12, "pool_proj": 16},
    ]
    modules = []
    for name, row in zip("abc", table, strict=True):
        kept = {key: value for key, value in row.items() if reduced or not key.startswith("reduce")}
        scaled = {key: round(value * scale) if isinstance(value, int) else value for key, value in kept.items()}
        modules.append({"name": name, **scaled})
    stem = [f"3x3/2 {round(32 * scale)}"]
    return {"family": "inception", **COMMON, "preprocess": PREPROCESS, "stem": stem, "modules": modules}


FAMILIES = {"resnet": resnet, "inception": inception}
# The 1x1 convolutions before the spatial ones.
REDUCTIONS = {"resnet": r"stage\d+_block\d+_conv1", "inception": r"inception[a-z]_branch[23]_conv1"}


def model_section(family: str, variant: str) -> dict:
    """The config of a net; that of equal multiply-adds is found by bisection over its channels."""
    import zoo
    from zoo.config import model_config

    make = FAMILIES[family]
    if variant != "equal_macs":
        return make(variant != "equal_width")

    def macs(section: dict) -> int:
        return zoo.describe(zoo.build(model_config(section, family))).macs

    wanted = macs(make(True))
    low, high = 0.05, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if macs(make(False, middle)) < wanted else (low, middle)
    return min((make(False, each) for each in (low, high)), key=lambda section: abs(macs(section) - wanted))


def without_activations(model, pattern: str):
    """The model without the ReLUs after the layers whose names match `pattern`."""
    import re

    import keras

    def clone(layer):
        if isinstance(layer, keras.layers.ReLU) and re.fullmatch(f"{pattern}_relu", layer.name):
            return keras.layers.Identity(name=layer.name)
        return type(layer).from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=clone)


def measure(family: str, variant: str, seed: int, images: int, epochs: int) -> dict:
    """Train one net, and report what it reached and what it took."""
    import zoo
    from zoo import data
    from zoo.config import Config
    from zoo.data.splits import Dataset, hold_out
    from zoo.evaluation import evaluate
    from zoo.training import start, train

    start(seed, True)
    freeze = f"({REDUCTIONS[family]})$" if variant == "random" else None
    config = Config.model_validate(
        {
            "name": f"{family}_{variant}",
            "seed": seed,
            "data": {"name": "cifar10", "validation": 0},
            "model": model_section(family, variant),
            "train": {
                "epochs": epochs,
                "batch_size": 64,
                "optimizer": {
                    "name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 2.0e-3,
                },
                "precision": "auto",
                "warmup": 0.2,
                "freeze": freeze,
            },
        }
    )  # fmt: skip
    whole = data.load(config)
    _, part = hold_out(whole.train, images, 0)
    dataset = Dataset(**{**vars(whole), "train": part, "validation": None})
    model = zoo.build(config.model)
    if variant == "linear":
        model = without_activations(model, REDUCTIONS[family])
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        train(model, dataset, config, Path(folder))
    seconds = time.perf_counter() - begin
    trained, tested = (evaluate(model, split, whole.class_names).accuracy for split in (part, whole.test))
    return {
        "family": family,
        "variant": variant,
        "seed": seed,
        "images": images,
        "epochs": epochs,
        "accuracy": tested,
        "train_accuracy": trained,
        "macs": zoo.describe(model).macs,
        "params": model.count_params(),
        "seconds": seconds,
    }


def table(rows: list[dict], options: argparse.Namespace) -> list[dict]:
    """The results, a row a net: mean and standard deviation over the seeds."""
    return [
        {
            "family": family,
            "reductions": TITLES[variant],
            "multiply-adds, M": round(runs[0]["macs"] / 1e6, 2),
            "parameters": runs[0]["params"],
            "test accuracy, %": deviation([100 * row["accuracy"] for row in runs]),
            "train − test, points": deviation([100 * (row["train_accuracy"] - row["accuracy"]) for row in runs]),
            "training, s": round(statistics.median(row["seconds"] for row in runs)),
        }
        for family, variant, runs in grouped(rows, options)
    ]


def grouped(rows: list[dict], options: argparse.Namespace) -> list[tuple[str, str, list[dict]]]:
    """The runs of this size by family and variant."""
    groups = []
    for family in options.families:
        for variant in TITLES:
            wanted = {"family": family, "variant": variant, "images": options.images, "epochs": options.epochs}
            own = [row for row in rows if row["seed"] < options.seeds and wanted.items() <= row.items()]
            groups += [(family, variant, own)] if own else []
    return groups


def main() -> None:
    """Run what is missing, seed by seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    add_option(parser)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    keys = ("family", "variant", "seed", "images", "epochs")
    there = {tuple(row[key] for key in keys) for row in rows}
    for seed in range(options.seeds):
        for family in options.families:
            for variant in TITLES:
                if (family, variant, seed, options.images, options.epochs) in there:
                    continue
                rows.append(measure(family, variant, seed, options.images, options.epochs))
                with path.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(f"{options.images:,} training images, {options.epochs} epochs, seeds 0 to {options.seeds - 1}\n")
    families = ", ".join(options.families)
    report(table(rows, options), options.record, f"families {families}", 10_000, tuple(range(options.seeds)))


if __name__ == "__main__":
    main()
