"""What ten further labelled images are worth: those that the model is least certain of, and ten at random.

    ZOO_SCENES_DIR=SCENES python benchmarks/marking.py -o FOLDER --record docs/records/marking.json

On photographs of blood smears: the net of configs/scenes_blood_cells.yaml is trained on a few images, scans the others
(none of which is for testing), and training goes on with the labels of ten of them. F1 of the objects in the test
images, before and after, by class and their mean.
"""

import argparse
import csv
import json
import os
import random
from pathlib import Path

from record import add_option, deviation, report

# Images: for testing in every seed, and of the others for training at first, for validation, and to be added.
TEST, TRAIN, VALIDATION, ADDED = 60, 16, 8, 10
# The first training, and what goes on from it.
FIRST = ("train.epochs=10",)
FURTHER = ("train.epochs=4", "train.optimizer.learning_rate=1.0e-3")


def write_split(path: Path, parts: dict[str, list[str]]) -> None:
    """Write a file for `data.split`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [(name, part) for part, names in parts.items() for name in names]
        csv.writer(file).writerows([("image", "split"), *rows])


def train(folder: Path, scenes: Path, parts: dict[str, list[str]], overrides: list[str]) -> Path:
    """Train on the labels of these images alone; the run directory."""
    import zoo

    labels, run = folder / "labels", folder / "run"
    labels.mkdir(parents=True, exist_ok=True)
    for name in sum(parts.values(), []):
        link = labels / Path(name).with_suffix(".xml").name
        if not link.exists():
            link.symlink_to(scenes / "annotations" / link.name)
    write_split(folder / "split.csv", parts)
    where = [f"data.dir={scenes / 'images'}", f"data.labels={labels}", f"data.split={folder / 'split.csv'}"]
    config = zoo.load_config("scenes_blood_cells", [*where, "data.unlabelled=skip", *overrides])
    zoo.run(config, run)
    return run


def uncertainties(run: Path, images: list[Path]) -> dict[str, float]:
    """How uncertain the model of a run is of each image, by the images' names."""
    import zoo
    from zoo.objects.peaks import inside_image
    from zoo.progress import track
    from zoo.scanning.readers import Uncertainty

    fcn, found = zoo.convolutionalize(zoo.load(run)), {}
    for path in track(images, "scanning"):
        score_map = zoo.scan(fcn, path, border="full")
        inside = inside_image(score_map.centres, score_map.image_size)
        reader = Uncertainty(score_map.outputs, score_map.cell_classes.background_index, inside)
        score_map.read_by(reader)
        found[path.name] = reader.mean
    return found


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

    scenes = Path(os.environ["ZOO_SCENES_DIR"]).absolute() / "blood_cells"
    names = sorted(path.name for path in (scenes / "images").iterdir())
    test = random.Random(0).sample(names, TEST)
    measured: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        others = random.Random(seed + 1).sample(sorted({*names} - {*test}), len(names) - TEST)
        first, validation = others[:TRAIN], others[TRAIN : TRAIN + VALIDATION]
        pool = others[TRAIN + VALIDATION :]
        held_out = {"validation": validation, "test": test}
        folder, seeded = options.output.absolute() / f"seed-{seed}", f"seed={seed}"
        begun = train(folder / "first", scenes, {"train": first, **held_out}, [seeded, *FIRST])
        found = uncertainties(begun, [scenes / "images" / name for name in pool])
        chosen = {
            # The pool is in random order.
            f"and {ADDED} at random": pool[:ADDED],
            f"and the {ADDED} least certain": sorted(pool, key=found.__getitem__)[-ADDED:],
        }
        measured.setdefault(f"{TRAIN} images", []).append(f1(begun))
        for name, added in chosen.items():
            further = [seeded, f"train.weights={begun}", *FURTHER]
            run = train(folder / name.replace(" ", "_"), scenes, {"train": first + added, **held_out}, further)
            measured.setdefault(name, []).append(f1(run))
    rows = [
        {"trained on": name, **{key: deviation([each[key] for each in values]) for key in values[0]}}
        for name, values in measured.items()
    ]
    report(rows, options.record, "scenes_blood_cells", TEST, tuple(range(options.seeds)))


if __name__ == "__main__":
    main()
