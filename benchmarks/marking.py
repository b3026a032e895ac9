"""What ten further images are worth: those that the model is least certain of, and ten at random.

    ZOO_SCENES_DIR=SCENES python benchmarks/marking.py -o FOLDER --record docs/records/marking.json

On photographs of blood smears: the net of configs/scenes_blood_cells.yaml is trained on a few images, scans the others
(none of which is for testing), and training goes on with ten of them, of which either all labels are given, or what a
user marks in the viewer: every object that is wrong or was missed. F1 of the objects in the test images, before and
after, by class and their mean.
"""

import argparse
import csv
import json
import os
import random
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from record import add_option, deviation, report

if TYPE_CHECKING:
    from zoo.data.labels import Written
    from zoo.scanning.score_map import ScoreMap

# Images: for testing in every seed, and of the others for training at first, for validation, and to be added.
TEST, TRAIN, VALIDATION, ADDED = 60, 16, 8, 10
# The first training, and what goes on from it.
FIRST = ("train.epochs=30",)
FURTHER = ("train.epochs=8", "train.optimizer.learning_rate=1.0e-3", "train.ema=0.9")


def write_table(path: Path, *rows: tuple) -> Path:
    """Write a .csv file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def train(
    folder: Path, scenes: Path, parts: dict[str, list[str]], overrides: list[str], marks: list[tuple] | None = None
) -> Path:
    """Train on the labels of these images alone, and on marks; the run directory."""
    import zoo

    labels, run = folder / "labels", folder / "run"
    labels.mkdir(parents=True, exist_ok=True)
    for name in sum(parts.values(), []):
        link = labels / Path(name).with_suffix(".xml").name
        if not link.exists():
            link.symlink_to(scenes / "annotations" / link.name)
    rows = [(name, part) for part, names in parts.items() for name in names]
    split = write_table(folder / "split.csv", ("image", "split"), *rows)
    where = [f"data.dir={scenes / 'images'}", f"data.labels={labels}", f"data.split={split}", "data.unlabelled=skip"]
    if marks:
        where.append(f"data.marks={write_table(folder / 'marks.csv', ('image', 'x', 'y', 'class'), *marks)}")
    zoo.run(zoo.load_config("scenes_blood_cells", [*where, *overrides]), run)
    return run


def scan(run: Path, images: list[Path]) -> dict[str, tuple["ScoreMap", float]]:
    """Scan images by the model of a run: their score maps, and how uncertain these are, by the images' names."""
    import zoo
    from zoo.large_images import scanner_of
    from zoo.objects.peaks import inside_image
    from zoo.progress import track
    from zoo.scanning.options import Options
    from zoo.scanning.readers import Uncertainty

    scanner, found = scanner_of(zoo.load(run), Options(border="full")), {}
    for path in track(images, "scanning"):
        score_map = scanner(path)
        inside = inside_image(score_map.centres, score_map.image_size)
        reader = Uncertainty(score_map.outputs, score_map.cell_classes.background_index, inside)
        score_map.read_by(reader)
        found[path.name] = (score_map, reader.mean)
    return found


def corrections(name: str, score_map: "ScoreMap", written: "Written") -> list[tuple]:
    """The marks of who corrects every error in an image: wrong objects, what is there or nothing; missed objects."""
    from zoo.objects.marked import Objects
    from zoo.objects.matching import match

    centres, sides = (written.boxes[:, :2] + written.boxes[:, 2:]) / 2, written.boxes[:, 2:] - written.boxes[:, :2]
    objects = Objects(centres, sides, np.array([score_map.class_names.index(each) for each in written.names]))
    found = score_map.objects()
    matches = match(found, objects)
    missed = ~np.isin(np.arange(len(objects)), matches)
    marks = []
    for y, x in found.centres[matches < 0]:
        inside = np.flatnonzero(missed & (np.abs(objects.centres - (y, x)) <= objects.sides / 2).all(-1))
        marks.append((name, f"{x:.3f}", f"{y:.3f}", written.names[inside[0]] if len(inside) else ""))
        missed[inside[:1]] = False
    marks += [(name, f"{x:.3f}", f"{y:.3f}", written.names[at]) for at, (y, x) in enumerate(centres) if missed[at]]
    return marks


def f1(run: Path) -> dict[str, float]:
    """The F1 of each class's objects in the test images, and their mean."""
    dense = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["dense"]
    of_classes = {f"F1 of {name}": each["f1"] or 0.0 for name, each in dense["classes"].items()}
    return {**of_classes, "mean": sum(of_classes.values()) / len(of_classes)}


def main() -> None:
    """Train, choose, go on and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*states no pixel size")

    from zoo.data.labels import read_labels

    scenes = Path(os.environ["ZOO_SCENES_DIR"]).absolute() / "blood_cells"
    names = sorted(path.name for path in (scenes / "images").iterdir())
    known = read_labels(scenes / "annotations", scenes / "images", names).of_images
    test = random.Random(0).sample(names, TEST)
    measured: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        others = random.Random(seed + 1).sample(sorted({*names} - {*test}), len(names) - TEST)
        first, validation, pool = np.split(others, np.cumsum((TRAIN, VALIDATION)))
        held_out = {"validation": validation.tolist(), "test": test}
        folder, seeded = options.output.absolute() / f"seed-{seed}", f"seed={seed}"
        parts = {"train": first.tolist(), **held_out}
        begun = train(folder / "first", scenes, parts, [seeded, *FIRST])
        maps = scan(begun, [scenes / "images" / name for name in pool])
        chosen = {
            # The pool is in random order.
            f"{ADDED} at random": pool[:ADDED].tolist(),
            f"the {ADDED} least certain": sorted(pool.tolist(), key=lambda name: maps[name][1])[-ADDED:],
        }
        measured.setdefault(f"{TRAIN} images", []).append({"marks": 0, **f1(begun)})
        for name, added in chosen.items():
            marks = [mark for each in added for mark in corrections(each, maps[each][0], known[each])]
            further = [seeded, f"train.weights={begun}", *FURTHER]
            for how, more, of_marks in (("labels", added, None), ("marks", [], marks)):
                here = {"train": [*parts["train"], *more], **held_out}
                run = train(folder / f"{name}-{how}".replace(" ", "_"), scenes, here, further, of_marks)
                measured.setdefault(f"and {how} of {name}", []).append({"marks": len(of_marks or ()), **f1(run)})
    rows = [
        {"net, further trained on": name, **{key: deviation([each[key] for each in values]) for key in values[0]}}
        for name, values in measured.items()
    ]
    report(rows, options.record, "scenes_blood_cells", TEST, tuple(range(options.seeds)))


if __name__ == "__main__":
    main()
