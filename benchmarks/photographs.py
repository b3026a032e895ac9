"""MNIST digits on photographs: what a classifier of crops, one that knows a background and one trained densely find.

    python benchmarks/photographs.py -o photographs

makes large labelled images, trains the three in `photographs/runs`, and draws what each says of one test image. The
table gives, over all test images, how many digits are answered right at the grid cell nearest to their middle, how many
background cells are answered with a digit, and how well digits are found as objects (see docs/whole_images.md).

The images are `images/*.png` (256 x 256, grey), with `labels.csv` (image, class, and the box of each digit) and
`split.csv`. The photographs are the two that scikit-learn ships, china.jpg and flower.jpg (CC BY 2.0; NOTICE names
their sources). Images of the training and validation part come from the left 60 % of either photograph with training
digits of MNIST, test images from the right 40 % with test digits, so that neither digits nor pixels are shared. Digits
are laid on as light: the larger of photograph and digit, after the photograph is darkened to 60 %.
"""

import argparse
import csv
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from record import add_option, report

if TYPE_CHECKING:
    from zoo.objects.marked import Scenes

SIDE, DIGIT = 256, 28
# Images of each part, and digits in each image.
PARTS = {"train": 80, "validation": 16, "test": 32}
DIGITS = 16


def photographs() -> list[np.ndarray]:
    """scikit-learn's two photographs in grey, (427, 640) each, at 60 % of their light."""
    from sklearn.datasets import load_sample_images

    return [np.asarray(Image.fromarray(each).convert("L"), np.float32) * 0.6 for each in load_sample_images().images]


def places(rng: np.random.Generator) -> list[tuple[int, int]]:
    """Top left corners of digits that do not overlap, drawn one after another."""
    found: list[tuple[int, int]] = []
    while len(found) < DIGITS:
        top, left = (int(each) for each in rng.integers(0, SIDE - DIGIT + 1, 2))
        if all(max(abs(top - other[0]), abs(left - other[1])) >= DIGIT for other in found):
            found.append((top, left))
    return found


def make_images(output: Path, seed: int) -> None:
    """Write the images, their labels and the split."""
    from zoo import data, load_config

    mnist = data.load(load_config("nin_mnist", ["data.validation=0", "train.patience=null"]))
    rng = np.random.default_rng(seed)
    folder = output / "images"
    folder.mkdir(parents=True)
    labels: list[dict[str, object]] = []
    split: list[dict[str, str]] = []
    for part, count in PARTS.items():
        digits = mnist.test if part == "test" else mnist.train
        for index in range(count):
            photograph = photographs()[index % 2]
            border = int(0.6 * photograph.shape[1])
            area = photograph[:, border:] if part == "test" else photograph[:, :border]
            top, left = (int(rng.integers(0, side - SIDE + 1)) for side in area.shape)
            image = area[top : top + SIDE, left : left + SIDE].copy()
            if rng.random() < 0.5:
                image = image[:, ::-1].copy()
            name = f"{part}_{index:03}.png"
            for y, x in places(rng):
                chosen = int(rng.integers(len(digits)))
                patch = image[y : y + DIGIT, x : x + DIGIT]
                np.maximum(patch, digits.images[chosen][..., 0], out=patch)
                box = {"left": x, "top": y, "right": x + DIGIT, "bottom": y + DIGIT}
                labels.append({"image": name, **box, "class": int(digits.labels[chosen])})
            Image.fromarray(image.round().astype(np.uint8)).save(folder / name)
            split.append({"image": name, "split": part})
    # The split comes last: where it is there, the images are whole.
    for file, rows in (("labels.csv", labels), ("split.csv", split)):
        with (output / file).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    print(f"{len(split)} images, {len(labels)} digits in {output}")


def experiments(folder: Path, seed: int) -> dict[str, tuple[str, list[str]]]:
    """The three trainings: a config, and what is overridden."""
    where = [
        f"data.dir={folder / 'images'}",
        f"data.labels={folder / 'labels.csv'}",
        f"data.split={folder / 'split.csv'}",
    ]
    crops = ["train.dense=null", "train.batch_size=128", "train.augment.shift=2", "train.epochs=30"]
    return {
        "crops of MNIST": ("nin_mnist_bn", ["model.padding=valid", "train.epochs=4", "canvas=null", f"seed={seed}"]),
        "crops, with background": ("scenes_mnist", [*where, *crops, f"seed={seed}"]),
        "dense": ("scenes_mnist", [*where, f"seed={seed}"]),
    }


def measure(run: Path, scenes: "Scenes") -> dict[str, object]:
    """What the model of a run says at the digits and at the background of the test images."""
    import zoo
    from zoo.objects.cell_labels import scene_labels

    model = zoo.load(run / "model.keras")
    right, digits, painted, empty = 0, 0, 0, 0
    for scene in scenes.test:
        scores = zoo.scan(model, scene.pixels, border="full")
        answers = scores.scores.argmax(-1)
        middles, stride = scores.centres, scores.geometry.stride
        nearest = [abs(each[:, None] - at).argmin(0) for each, at in zip(middles, scene.objects.centres.T, strict=True)]
        right += int((answers[tuple(nearest)] == scene.objects.classes).sum())
        digits += len(scene.objects)
        labels = scene_labels(scene, scenes, *middles, (stride[0], stride[1]))
        background = labels == scenes.class_names.index(scenes.background)
        painted += int((answers[background] < 10).sum())
        empty += int(background.sum())
    found = json.loads((run / "evaluation.json").read_text()).get("dense")
    return {
        "digits right at their place, %": round(100 * right / digits, 1),
        "background cells answered with a digit, %": round(100 * painted / empty, 1),
        "F1 of the digits found": round(found["micro"]["f1"], 3) if found else None,
    }


def main() -> None:
    """Make the images, train, measure and draw."""
    import zoo
    from zoo import data, experiment, plots
    from zoo.scanning.summary import Summary

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()

    if not (options.output / "split.csv").is_file():
        make_images(options.output, options.seed)
    scenes, table = None, []
    for name, (config, overrides) in reversed(experiments(options.output.absolute(), options.seed).items()):
        resolved, run = zoo.load_config(config, overrides), options.output / "runs" / name.replace(" ", "_")
        begin = time.monotonic()
        experiment.run(resolved, run)
        minutes = (time.monotonic() - begin) / 60
        scenes = scenes or data.load(resolved).scenes
        table.insert(0, {"training": name, **measure(run, scenes), "minutes": round(minutes, 1)})
        image = scenes.test[1].pixels
        shown = Summary(zoo.scan(zoo.load(run / "model.keras"), image, border="full"), image)
        plots.overlay(shown, options.output / f"{name.replace(' ', '_')}.png")
    report(table, options.record, "scenes_mnist", len(scenes.test), (options.seed,))


if __name__ == "__main__":
    main()
