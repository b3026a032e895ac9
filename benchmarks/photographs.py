"""MNIST digits on photographs: large labelled images whose background is no black canvas.

    python benchmarks/photographs.py -o photographs

writes `images/*.png` (256 x 256, grey), `labels.csv` (image, class, and the box of each digit) and `split.csv`. The
photographs are the two that scikit-learn ships, "china.jpg" (CC BY 2.0, by Andreas Krappweis) and "flower.jpg"
(CC BY 2.0, by dany13). Images of the training and validation part come from the left 60 % of either photograph with
training digits of MNIST, test images from the right 40 % with test digits, so that neither digits nor pixels are
shared. Digits are laid on as light: the larger of photograph and digit, after the photograph is darkened to 60 %.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

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


def main() -> None:
    """Write the images, their labels and the split."""
    from zoo import data, load_config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    mnist = data.load(load_config("nin_mnist", ["data.validation=0", "train.patience=null"]))
    rng = np.random.default_rng(options.seed)
    folder = options.output / "images"
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
    for file, rows in (("labels.csv", labels), ("split.csv", split)):
        with (options.output / file).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    print(f"{len(split)} images, {len(labels)} digits in {options.output}")


if __name__ == "__main__":
    main()
