"""Counters of the shipped configs, beside the training mean and a classifier's peaks: draws of few training images.

    python benchmarks/counting.py SCENES [--cases fluorescence-32 bone_marrow-15] [--draws 3] [--runs runs/counting]

SCENES holds a folder for each set, with `images/` and `points.csv`. Each draw takes N images for training and
validation together, the others are the test; or whole specimens. It is a training of the config as it is, in a process
of its own, in a run directory: a finished one is not repeated. The table gives the mean of the draws' mean absolute
errors; the interval is of a bootstrap over images, an image in all draws at once. The part that hidden objects have in
it: what is left when an image's error is explained, linearly, by how many more of its objects lie within the case's
`near` of one another than is usual for so many. `--peaks` trains the same net, on the same draws, as a classifier on
the grid instead, whose peaks are counted, with the tolerance of the case.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from record import ROOT, add_option, report
from scipy.spatial import cKDTree


def specimen(image: str) -> str:
    """That of an image of bone marrow: the seven characters after HE_."""
    return image.partition("HE_")[2][:7]


@dataclass(frozen=True)
class Case:
    """A case: its set, `train` images (or specimens) of which `validation` are for validation, and what is published.

    `tolerance`: of a classifier's objects, in pixels of the given image. `near`: a third of an object, in such pixels.
    `group`: what is drawn instead of an image.
    """

    data: str
    train: int
    validation: int
    published: float
    tolerance: float
    near: float
    group: Callable[[str], str] | None = None


CASES = {
    "fluorescence-32": Case("fluorescence", 32, 8, 2.4, 6, 4),
    "fluorescence-64": Case("fluorescence", 64, 12, 2.3, 6, 4),
    "bone_marrow-15": Case("bone_marrow", 15, 3, 8.8, 12, 8),
    "bone_marrow-specimens": Case("bone_marrow", 4, 1, 8.8, 12, 8, specimen),
}
# The same net as a classifier of what is in the middle of its window.
PEAKS = ("train.target=class", "model.num_classes=2", "train.dense.hardest=3")


def write_split(case: Case, points: Path, draw: int, path: Path) -> Path:
    """Draw the images of each part, and write them as `data.split` takes them."""
    with points.open(newline="", encoding="utf-8") as file:
        images = sorted({row["image"] for row in csv.DictReader(file)})
    names = sorted(set(map(case.group, images))) if case.group else images
    order = np.random.default_rng(draw).permutation(names).tolist()
    held_out, train = order[: case.validation], order[case.validation : case.train]
    rows = ["image,split"]
    for image in images:
        name = case.group(image) if case.group else image
        rows.append(f"{image},{'validation' if name in held_out else 'train' if name in train else 'test'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def near_pairs(points: Path, near: float) -> dict[str, int]:
    """How many pairs of objects of each image are nearer to each other than this, in pixels."""
    centres = defaultdict(list)
    with points.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            centres[row["image"]].append((float(row["x"]), float(row["y"])))
    return {image: len(cKDTree(each).query_pairs(near)) for image, each in centres.items()}


def unexplained(found: np.ndarray, labelled: np.ndarray, pairs: np.ndarray) -> float:
    """The mean absolute error (n,) that is left when pairs explain what they can, beyond those usual for the count."""
    usual = labelled**2.0
    more = pairs - usual * (pairs.sum() / usual.sum())
    errors = found - labelled
    slope, _ = np.polyfit(more, errors, 1)
    return float(np.abs(errors - slope * more).mean())


def trained(case: Case, scenes: Path, split: Path, folder: Path, overrides: list[str]) -> tuple[dict, float]:
    """What a run's evaluation holds, and the seconds that it took."""
    data = scenes.absolute() / case.data
    keys = [f"data.dir={data / 'images'}", f"data.labels={data / 'points.csv'}", f"data.split={split.absolute()}"]
    command = [sys.executable, "train.py", f"configs/scenes_{case.data}.yaml", *keys, *overrides]
    subprocess.run([*command, "--workdir", str(folder.absolute())], cwd=ROOT, check=True)
    environment = json.loads((folder / "environment.json").read_text())
    began, ended = (datetime.fromisoformat(environment[key]) for key in ("began", "ended"))
    return json.loads((folder / "evaluation.json").read_text()), (ended - began).total_seconds()


def pooled(runs: list[dict[str, float]]) -> tuple[float, tuple[float, float] | None]:
    """The mean over draws of the mean absolute errors of images, by their names, and its interval over images."""
    from zoo.objects.matching import image_weights, interval

    names = sorted({name for errors in runs for name in errors})
    weights = image_weights(len(names))
    there = np.array([[name in errors for name in names] for errors in runs], float)
    errors = np.array([[each.get(name, 0.0) for name in names] for each in runs])
    means = ((weights @ errors.T) / np.maximum(weights @ there.T, 1)).mean(-1)
    return float(means[0]), interval(means[1:])


def counter_row(name: str, draws: int, scenes: Path, runs: Path, overrides: list[str]) -> dict:
    """The errors of a case's counters: the table's row."""
    case, errors, usual, left, seconds = CASES[name], [], [], [], []
    points = scenes / case.data / "points.csv"
    near = near_pairs(points, case.near)
    for draw in range(draws):
        split = write_split(case, points, draw, runs / f"{name}-{draw}.csv")
        result, took = trained(case, scenes, split, split.with_suffix(""), overrides)
        ((kind, scores),) = result["dense"]["counts"].items()
        images = result["dense"]["images"]
        found, labelled = (np.array([each[key][kind] for each in images]) for key in ("found", "labelled"))
        names = [each["image"] for each in images]
        errors.append(dict(zip(names, np.abs(found - labelled).tolist(), strict=True)))
        left.append(unexplained(found, labelled, np.array([near[each] for each in names])))
        usual.append(scores["training_mean_error"])
        seconds.append(took)
    mean, bounds = pooled(errors)
    return {
        "images": name,
        "mean absolute error": round(mean, 2),
        "95 % interval": None if bounds is None else f"{bounds[0]:.2f} to {bounds[1]:.2f}",
        "of each draw": [round(float(np.mean(list(each.values()))), 2) for each in errors],
        "without hidden objects": round(float(np.mean(left)), 2),
        "always the training mean": round(float(np.mean(usual)), 1),
        "published": case.published,
        "minutes": round(max(seconds) / 60, 1),
    }


def peaks_row(name: str, draws: int, scenes: Path, runs: Path, overrides: list[str]) -> dict:
    """The errors of the peaks of a case's classifiers: the table's row."""
    case, errors, f1, seconds = CASES[name], [], [], []
    more = [*PEAKS, f"data.tolerance={case.tolerance}", *overrides]
    for draw in range(draws):
        split = write_split(case, scenes / case.data / "points.csv", draw, runs / f"{name}-{draw}.csv")
        result, took = trained(case, scenes, split, split.with_name(f"{split.stem}-peaks"), more)
        ((kind, scores),) = result["dense"]["counts"].items()
        errors.append(scores["mean_absolute_error"])
        f1.append(result["dense"]["classes"][kind]["f1"])
        seconds.append(took)
    return {
        "images": name,
        "mean absolute error of a classifier's peaks": round(float(np.mean(errors)), 2),
        "of each draw": [round(each, 2) for each in errors],
        "F1 of each draw": [round(each, 3) for each in f1],
        "minutes": round(max(seconds) / 60, 1),
    }


def main() -> None:
    """Train all draws of every case, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--peaks", action="store_true", help="count a classifier's peaks")
    parser.add_argument("--runs", type=Path, default=Path("runs/counting"))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of every config")
    add_option(parser)
    options = parser.parse_args()
    row = peaks_row if options.peaks else counter_row
    rows = [row(name, options.draws, options.scenes, options.runs, options.set) for name in options.cases]
    report(rows, options.record, "scenes_fluorescence, scenes_bone_marrow", options.draws, tuple(range(options.draws)))


if __name__ == "__main__":
    main()
