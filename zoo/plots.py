"""Pictures of a run as PNG files: curves, confusion, filters, heat maps over images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import PowerNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from zoo.errors import InputError, shortened
from zoo.figures import (
    LONGEST_NAME,
    MARKERS,
    class_patch,
    hatch_classes,
    own_style,
    readable_on,
    rim,
    subplots,
    write_figure,
)
from zoo.made_by import MadeBy
from zoo.objects.peaks import FoundObjects
from zoo.scanning.density import Density, density_unit
from zoo.scanning.influence import Box, Influence
from zoo.scanning.overlay import MARK, palette, pattern
from zoo.scanning.pixels import Pixels
from zoo.scanning.score_map import ScoreMap
from zoo.scanning.summary import Summary
from zoo.scanning.thumbnails import grey_view

if TYPE_CHECKING:
    import keras

    from zoo.data import Canvas

_BEYOND = "lightsteelblue"
# Frames in the picture of a cell, the widest first: where they coincide, all still show.
_LINES: dict[str, dict[str, Any]] = {
    "theoretical field": {"ec": "limegreen", "lw": 4},
    "window": {"ec": "cyan", "lw": 2},
    "exact field": {"ec": "white", "lw": 2, "ls": (0, (4, 6))},
    "effective field": {"ec": "magenta", "lw": 2, "ls": (5, (4, 6))},
}
# How wide the circle about an object is, and the rim below it.
_WIDE, _RIM = 1.8, 3.4
# Pixels a side of a heat map that matplotlib is given; it draws 830 of them.
_DRAWN = 1000
# The frame of what was answered wrongly.
_WRONG = "orangered"


@own_style()
def curves(history: list[dict[str, float]], path: Path) -> Path:
    """Loss and accuracy, or error, over the epochs, for training and, where there is one, validation."""
    figure, axes = subplots(1, 2, (9, 3.4))
    measure = "accuracy" if "accuracy" in history[0] else "mean_absolute_error"
    epochs = [row["epoch"] for row in history]
    marker = "." if len(epochs) < 20 else ""
    for axis, key in zip(axes[0], ("loss", measure), strict=True):
        axis.plot(epochs, [row[key] for row in history], "-", color="tab:blue", label="training", marker=marker)
        if f"val_{key}" in history[0]:
            values = [row[f"val_{key}"] for row in history]
            axis.plot(epochs, values, "--", color="tab:red", label="validation", marker=marker)
        axis.set(xlabel="epoch", ylabel=key.replace("_", " "))
        axis.grid(alpha=0.3)
        axis.legend()
    return write_figure(figure, path)


@own_style()
def confusion(counts: list[list[int]], class_names: tuple[str, ...], path: Path) -> Path:
    """Rows are true classes, columns answers; colours are shares of the row, numbers are counts."""
    table = np.array(counts)
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    classes = len(class_names)
    side = min(max(3.5, 0.42 * classes + 2), 16)
    figure, ((axis,),) = subplots(1, 1, (side + 1, side))
    shown = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shown, ax=axis, shrink=0.8, label="share of the true class's images")
    if classes <= 30:
        names = [shortened(name, LONGEST_NAME) for name in class_names]
        axis.set_xticks(range(classes), names, rotation=90)
        axis.set_yticks(range(classes), names)
        for row, column in np.argwhere(table):
            colour = readable_on(shown.to_rgba(shares[row, column]))
            axis.text(column, row, table[row, column], ha="center", va="center", color=colour, fontsize=7)
    axis.set(xlabel="answer", ylabel="true class")
    return write_figure(figure, path)


def first_convolution(model: "keras.Model") -> tuple[str, np.ndarray] | None:
    """The name and the kernels (h, w, channels, n) of the first convolution; None where there is none."""
    import keras

    first = next((layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)), None)
    return None if first is None else (first.name, keras.ops.convert_to_numpy(first.kernel))


def _visible(kernels: np.ndarray) -> np.ndarray:
    """Kernels (h, w, channels, n) -> (h, w, 3 or 1, n) in 0 to 1, each filter over its own range."""
    shown = kernels if kernels.shape[2] == 3 else kernels.mean(2, keepdims=True)
    low, high = shown.min((0, 1, 2)), shown.max((0, 1, 2))
    return (shown - low) / np.maximum(high - low, 1e-12)


@own_style()
def filters(model: "keras.Model", path: Path) -> Path:
    """The first convolution's kernels: in colour on three channels, else the mean over channels in grey.

    Raises:
        InputError: where the model has no convolution.
    """
    first = first_convolution(model)
    if first is None:
        raise InputError(f"model {model.name!r}: has no Conv2D layer whose filters could be drawn")
    name, kernels = first
    height, width, channels, count = kernels.shape
    shown = _visible(kernels)
    columns = int(np.ceil(np.sqrt(count * 1.6)))
    rows = -(-count // columns)
    sheet = np.ones((rows * (height + 1) + 1, columns * (width + 1) + 1, shown.shape[2]))
    for index in range(count):
        top, left = index // columns * (height + 1) + 1, index % columns * (width + 1) + 1
        sheet[top : top + height, left : left + width] = shown[..., index]
    figure, ((axis,),) = subplots(1, 1, (8, 8 * sheet.shape[0] / sheet.shape[1] + 0.4))
    axis.imshow(sheet if channels == 3 else sheet[..., 0], cmap="gray", vmin=0, vmax=1)
    axis.set_title(f"{name}: {count} filters, {height} x {width} on {channels} channels", fontsize=9)
    axis.axis("off")
    return write_figure(figure, path)


@own_style()
def overlay(summary: Summary, path: Path, canvas: "Canvas | None" = None) -> Path:
    """The heat map over its image, at most 2,000 pixels a side, with a legend of the classes.

    From the eleventh class on, of which colours repeat, areas are hatched. Of a model that knows a background the
    objects are drawn as circles, of such classes as squares and so on, and the legend has their counts. Of a counter
    the density of one class is drawn, with its count (`zoo.density_plots` draws all of them). With a `canvas`, each
    pasted image's place is framed: thin and white where the nearest cell is right, dashed and red, with the true
    class's name, where it is wrong.
    """
    score_map, class_index = summary.score_map, summary.class_index
    height, width = score_map.image_size
    scale = 9 / max(height, width)
    figure, ((axis,),) = subplots(1, 1, (width * scale + 1.6, height * scale))
    bottom, right = (side * summary.factor - 0.5 for side in summary.picture.shape[:2])
    axis.imshow(_as_drawn(summary.picture), interpolation="nearest", extent=(-0.5, right, bottom, -0.5))
    axis.set(xlabel="column (pixels)", ylabel="row (pixels)", xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    if class_index is None and summary.overlay is not None:
        every = [-(-side // _DRAWN) for side in summary.picture.shape[:2]]
        down, across = (
            summary.factor * (np.arange(0, side, step) + 0.5) - 0.5
            for side, step in zip(summary.picture.shape[:2], every, strict=True)
        )
        hatch_classes(axis, summary.overlay.classes[:: every[0], :: every[1]], across, down)
    if canvas is not None:
        _frames(axis, score_map, canvas)
    shown: Sequence[int] = np.flatnonzero(summary.wins).tolist() if class_index is None else [class_index]
    names = [shortened(name, LONGEST_NAME) for name in score_map.class_names]
    title = "winner" if class_index is None else "probability"
    if summary.found is not None:
        shown = score_map.cell_classes.objects if class_index is None else [class_index]
        numbers = _circles(axis, score_map, summary.found.of_any(shown), 72 * scale)
        names = [f"{name}: {count}" for name, count in zip(names, numbers, strict=True)]
        title = "objects" if class_index is None else "probability; objects"
    if summary.density is not None and class_index is not None:
        shown, by_unit = [class_index], density_unit(score_map)
        names = about_counts(summary.density, names)
        title = f"density, up to {by_unit[0] * summary.density.largest(class_index):.3g} {by_unit[1]}"
    shown = shown[:40]
    handles: list[Any] = [class_patch(index, len(names)) for index in shown]
    if summary.found is not None:
        handles = [(area, *_circles_of_legend(index, len(names))) for area, index in zip(handles, shown, strict=True)]
    texts, place = [names[index] for index in shown], {"loc": "upper left", "bbox_to_anchor": (1.01, 1)}
    axis.legend(handles, texts, title=title, borderaxespad=0, fontsize=9, **place)
    window = f"window {' x '.join(map(str, score_map.crop_places[1]))}"
    if score_map.scales:
        window += f" at scale {min(score_map.scales):g}"
    axis.set_title(
        f"{score_map.scores.shape[0]} x {score_map.scores.shape[1]} cells, stride {score_map.stride[0]:g}, "
        f"{window} pixels",
        fontsize=9,
    )
    return write_figure(figure, path, score_map.made_by)


def _as_drawn(picture: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3) uint8 with about as many pixels as are drawn of it: matplotlib takes 70 bytes for each."""
    height, width = picture.shape[:2]
    if (share := _DRAWN / max(height, width)) >= 1:
        return picture
    size = (max(round(width * share), 1), max(round(height * share), 1))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def about_counts(density: Density, names: Sequence[str]) -> list[str]:
    """The classes with their counts."""
    counts = zip(names, density.counts.values(), strict=True)
    return [f"{shortened(name, LONGEST_NAME)}: about {count:.1f}" for name, count in counts]


@own_style()
def cell(influence: Influence, image: np.ndarray | Pixels, path: Path, made_by: MadeBy | None = None) -> Path:
    """What one cell looks at: window, theoretical field and measured influence, over the image around it in grey.

    The influence lies over the image at the left, the more opaque the larger it is, and alone at the right.

    Args:
        influence: it, measured on `image`.
        image: (H, W, C), or anything of that shape that is read by slices.
        path: the PNG file.
        made_by: the command that draws it, which the file is made to name.
    """
    view, shown = _view(np.array(list(influence.boxes.values())), image.shape[:2])
    top, left, bottom, right = shown
    grey = grey_view(np.asarray(image[top:bottom, left:right]))
    values = influence.over(shown)
    share = values / (values.max() or 1)
    heat = {"cmap": "inferno", "norm": PowerNorm(0.5, 0, 1), "extent": _extent(shown)}
    height, width = view[2] - view[0], view[3] - view[1]
    scale = 5 / max(height, width)
    size = (2 * width * scale + 1.7, height * scale + 1.6)
    figure, (axes,) = subplots(1, 2, size, shared=True, layout="constrained")
    axes[0].imshow(grey, cmap="gray", vmin=0, vmax=255, extent=_extent(shown))
    axes[0].imshow(share, alpha=0.7 * np.sqrt(share), **heat)
    bar = figure.colorbar(axes[1].imshow(share, **heat), ax=axes[1], ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    bar.set_label("share of the most influential pixel's (square-root scale)")
    for axis in axes:
        axis.set_facecolor(_BEYOND)
        frames = [_frame_of(influence, name) for name in _LINES if name in influence.boxes]
        # The rims of all come first: one's would hide another frame.
        wide = [frame.get_linewidth() + 1.6 for frame in frames]
        axis.add_collection(PatchCollection(frames, facecolors="none", edgecolors="black", linewidths=wide))
        for frame in frames:
            axis.add_patch(frame)
        axis.set(xlim=(view[1] - 0.5, view[3] - 0.5), ylim=(view[2] - 0.5, view[0] - 0.5), xlabel="column (pixels)")
    axes[0].set(ylabel="row (pixels)", title="over the image, the stronger the more opaque")
    axes[1].set_title("influence of each pixel on the score")
    handles = [*axes[0].patches, *([Patch(color=_BEYOND, label="beyond the image")] if shown != view else [])]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=2, facecolor="0.2", framealpha=1, labelcolor="white"
    )
    figure.suptitle(influence.sentence())
    return write_figure(figure, path, made_by)


def _frame_of(influence: Influence, name: str) -> Rectangle:
    """One of the rectangles of the picture of a cell, and what the legend says of it."""
    box = influence.boxes[name]
    height, width = box[2] - box[0], box[3] - box[1]
    label = f"{name}, {height} x {width}: {influence.share(box):.1%} of the influence"
    return Rectangle((box[1] - 0.5, box[0] - 0.5), width, height, fill=False, label=label, **_LINES[name])


def _view(boxes: np.ndarray, size: tuple[int, int]) -> tuple[Box, Box]:
    """The rectangle about some boxes, with a margin, and the part of it that lies in an image of `size`."""
    least, most = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    margin = max(2, 0.1 * (most - least).max())
    view = (*np.floor(least - margin).astype(int), *np.ceil(most + margin).astype(int))
    return tuple(view), tuple(np.clip(view, 0, [*size, *size]))


def _extent(box: Box) -> tuple[float, float, float, float]:
    """A box for imshow, which puts the middle of a pixel at its index."""
    top, left, bottom, right = box
    return left - 0.5, right - 0.5, bottom - 0.5, top - 0.5


def _circles(axis: Axes, score_map: ScoreMap, found: FoundObjects, point: float) -> list[int]:
    """Circles, or other marks, about objects, in their classes' colours; return how many each class has.

    `point`: points of the figure for a pixel of the image.
    """
    sides, colours = score_map.crop_places[1], palette(len(score_map.class_names))
    across = float(np.clip(2 * MARK * min(sides) * point, 4, 14))
    # The middle of the first pixel is at 0 here.
    y, x = found.centres.T - 0.5
    patterns = np.array([*map(pattern, found.classes)], int)
    for number in np.unique(patterns):
        own = patterns == number
        for colour, wide in (("black", _RIM), (colours[found.classes[own]], _WIDE)):
            look: dict[str, Any] = {
                "marker": MARKERS[number],
                "facecolors": "none",
                "edgecolors": colour,
                "linewidths": wide,
            }
            axis.scatter(x[own], y[own], across**2, **look)
    return np.bincount(found.classes, minlength=len(score_map.class_names)).tolist()


def _circles_of_legend(index: int, classes: int) -> list[Line2D]:
    """The mark of a class's objects, as the legend shows it."""
    look: dict[str, Any] = {"ls": "", "marker": MARKERS[pattern(index)], "mfc": "none", "ms": 8}
    rings = ("black", _RIM), (palette(classes)[index], _WIDE)
    return [Line2D([], [], mec=colour, mew=wide, **look) for colour, wide in rings]


def _frames(axis: Axes, score_map: ScoreMap, canvas: "Canvas") -> None:
    last = np.array(score_map.scores.shape[:2]) - 1
    for box, label in zip(canvas.boxes, canvas.labels, strict=True):
        row, column = np.clip(score_map.geometry.nearest_cell(*box), 0, last)
        right = score_map.classes_of(np.asarray(score_map.scores[row, column])) == label
        top, left, bottom, end = box
        look: dict[str, Any] = {"ec": "white", "lw": 0.8} if right else {"ec": _WRONG, "lw": 1.6, "ls": "--"}
        sides = end - left, bottom - top
        frame = Rectangle((left - 0.5, top - 0.5), *sides, fill=False, path_effects=rim(look["lw"]), **look)
        axis.add_patch(frame)
        if not right:
            name = shortened(score_map.class_names[label], LONGEST_NAME)
            axis.text(left, top - 1.5, name, color=_WRONG, fontsize=8, path_effects=rim(0.4))
