"""Pictures of a run as PNG files: curves, confusion, filters, heat maps over images."""

from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402 - after the choice of a backend without a screen
import numpy as np  # noqa: E402
from matplotlib.patches import Patch, Rectangle  # noqa: E402

from zoo.data import Scene  # noqa: E402
from zoo.dense.score_map import ScoreMap, palette  # noqa: E402
from zoo.errors import InputError  # noqa: E402
from zoo.saving import replacing  # noqa: E402

_DPI = 120


def curves(history: list[dict[str, float]], path: Path) -> Path:
    """Loss and accuracy over the epochs, for training and, where there is one, validation."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    epochs = [row["epoch"] for row in history]
    for axis, key in zip(axes, ("loss", "accuracy"), strict=True):
        axis.plot(epochs, [row[key] for row in history], label="training", marker="." if len(epochs) < 20 else "")
        if f"val_{key}" in history[0]:
            values = [row[f"val_{key}"] for row in history]
            axis.plot(epochs, values, label="validation", marker="." if len(epochs) < 20 else "")
        axis.set(xlabel="epoch", ylabel=key)
        axis.grid(alpha=0.3)
        axis.legend()
    return _write(figure, path)


def confusion(counts: list[list[int]], class_names: tuple[str, ...], path: Path) -> Path:
    """Rows are true classes, columns answers; colours are shares of the row, numbers are counts."""
    table = np.array(counts)
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    classes = len(class_names)
    side = min(max(3.5, 0.42 * classes + 2), 16)
    figure, axis = plt.subplots(figsize=(side, side))
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if classes <= 30:
        axis.set_xticks(range(classes), class_names, rotation=90)
        axis.set_yticks(range(classes), class_names)
        for row, column in np.argwhere(table):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, table[row, column], ha="center", va="center", color=colour, fontsize=7)
    axis.set(xlabel="answer", ylabel="true class")
    return _write(figure, path)


def filters(model: keras.Model, path: Path) -> Path:
    """The first convolution's kernels: in colour on three channels, else the mean over channels in grey.

    Raises:
        InputError: where the model has no convolution.
    """
    first = next((layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)), None)
    if first is None:
        raise InputError(f"model {model.name!r}: has no Conv2D layer whose filters could be drawn")
    kernels = keras.ops.convert_to_numpy(first.kernel)
    height, width, channels, count = kernels.shape
    shown = kernels if channels == 3 else kernels.mean(2, keepdims=True)
    low, high = shown.min((0, 1, 2)), shown.max((0, 1, 2))
    shown = (shown - low) / np.maximum(high - low, 1e-12)
    columns = int(np.ceil(np.sqrt(count * 1.6)))
    rows = -(-count // columns)
    sheet = np.ones((rows * (height + 1) + 1, columns * (width + 1) + 1, shown.shape[2]))
    for index in range(count):
        top, left = index // columns * (height + 1) + 1, index % columns * (width + 1) + 1
        sheet[top : top + height, left : left + width] = shown[..., index]
    figure, axis = plt.subplots(figsize=(8, 8 * sheet.shape[0] / sheet.shape[1] + 0.4))
    axis.imshow(sheet if channels == 3 else sheet[..., 0], cmap="gray", vmin=0, vmax=1)
    axis.set_title(f"{first.name}: {count} filters, {height} x {width} on {channels} channels", fontsize=9)
    axis.axis("off")
    return _write(figure, path)


def overlay(
    score_map: ScoreMap, image: np.ndarray, path: Path, class_index: int | None = None, scene: Scene | None = None
) -> Path:
    """The heat map over its image, with a legend of the classes.

    With a `scene`, each pasted image's place is framed: white where the nearest cell is right, red with the true
    class's name where it is wrong.
    """
    coloured = score_map.overlay(image, class_index)
    height, width = coloured.shape[:2]
    scale = 9 / max(height, width)
    figure, axis = plt.subplots(figsize=(width * scale + 1.6, height * scale))
    axis.imshow(coloured, interpolation="nearest")
    axis.set_xlabel("pixels")
    winners = score_map.scores.argmax(-1)
    if scene is not None:
        _frames(axis, score_map, scene)
    shown = np.unique(winners) if class_index is None else [class_index]
    names, colours = score_map.class_names, palette(len(score_map.class_names))
    handles = [Patch(color=colours[index], label=names[index]) for index in shown[:40]]
    title = "winner" if class_index is None else "probability"
    axis.legend(handles=handles, title=title, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize=9)
    geometry = score_map.geometry
    axis.set_title(
        f"{score_map.scores.shape[0]} x {score_map.scores.shape[1]} cells, stride {geometry.stride[0]}, "
        f"window {geometry.window[0]} x {geometry.window[1]} pixels",
        fontsize=9,
    )
    return _write(figure, path)


def _frames(axis: plt.Axes, score_map: ScoreMap, scene: Scene) -> None:
    last = np.array(score_map.scores.shape[:2]) - 1
    for box, label in zip(scene.boxes, scene.labels, strict=True):
        row, column = np.clip(score_map.geometry.nearest_cell(*box), 0, last)
        right = score_map.scores[row, column].argmax() == label
        top, left, bottom, end = box
        frame = Rectangle(
            (left - 0.5, top - 0.5), end - left, bottom - top, fill=False, edgecolor="white" if right else "red", lw=0.8
        )
        axis.add_patch(frame)
        if not right:
            axis.text(left, top - 1.5, score_map.class_names[label], color="red", fontsize=7)


def _write(figure: plt.Figure, path: Path) -> Path:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, bbox_inches="tight", format="png")
    plt.close(figure)
    return Path(path)
