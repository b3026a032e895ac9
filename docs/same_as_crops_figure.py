"""The figure of docs/same_as_crops.md: a score map beside the classifier's answers to all of its crops.

    python docs/same_as_crops_figure.py

Two trained nets of the package, with padding and without, over a photograph that scikit-learn ships.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np  # noqa: E402  # after the backend is chosen
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.colors import ListedColormap  # noqa: E402
from sklearn.datasets import load_sample_image  # noqa: E402

import zoo  # noqa: E402
from zoo.scanning.overlay import palette  # noqa: E402

NETS = {"nin_cifar10_padded": "with padding", "nin_cifar10_valid": "without padding"}


def main() -> None:
    """Draw a row a net: the winners of the grid's cells, those of their crops, and how far the scores differ."""
    image = load_sample_image("china.jpg")[::3, ::3][:140, :212]  # sides that whole windows fill
    figure, axes = plt.subplots(2, 3, figsize=(10, 4.6), layout="constrained")
    for row, (name, words) in zip(axes, NETS.items(), strict=True):
        model = zoo.load(name)
        found = zoo.scan(zoo.convolutionalize(model), image)
        rows, columns = found.scores.shape[:2]
        boxes = [found.geometry.cell_box(i, j) for i in range(rows) for j in range(columns)]
        crops = np.stack([image[top:bottom, left:right] for top, left, bottom, right in boxes])
        wanted = model.predict(crops, verbose=0).reshape(found.scores.shape)
        difference = np.abs(found.scores - wanted).max(-1) / np.abs(wanted).max()
        winners = {"vmin": -0.5, "vmax": 9.5, "cmap": ListedColormap(palette(10))}
        row[0].imshow(found.scores.argmax(-1), **winners)
        row[0].set_ylabel(words)
        row[1].imshow(wanted.argmax(-1), **winners)
        shown = row[2].imshow(difference, vmin=0, vmax=1, cmap="magma")
    figure.colorbar(shown, ax=axes[:, 2], label="share of the largest score")
    titles = ("winner of each cell, one pass", "winner of each crop", "largest difference of their scores")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.savefig(Path(__file__).with_name("images") / "same_as_crops.png", dpi=110)


if __name__ == "__main__":
    main()
