"""Pictures of a run as PNG files: curves, confusion, filters, heat maps over images."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, Rectangle

from zoo.errors import InputError, shortened
from zoo.files import replacing
from zoo.made_by import MadeBy
from zoo.objects.cell_labels import IGNORED, scene_labels
from zoo.objects.marked import Scene, Scenes
from zoo.objects.peaks import FoundObjects
from zoo.scanning.density import Density, density_unit
from zoo.scanning.influence import Box, Influence
from zoo.scanning.overlay import MARK, palette
from zoo.scanning.pixels import Pixels
from zoo.scanning.score_map import ScoreMap
from zoo.scanning.summary import Summary
from zoo.scanning.thumbnails import Thumbnail, grey_view, read_by

if TYPE_CHECKING:
    import keras

    from zoo.data import Canvas

_DPI = 120
_BEYOND = "lightsteelblue"
# Frames in the picture of a cell; where they coincide, all still show.
_LINES: dict[str, dict[str, Any]] = {
    "window": {"ec": "cyan", "lw": 2},
    "theoretical field": {"ec": "limegreen", "lw": 4},
    "exact field": {"ec": "white", "lw": 2, "ls": (0, (4, 6))},
    "effective field": {"ec": "magenta", "lw": 2, "ls": (5, (4, 6))},
}
# How many images the labels of grid cells are drawn over, and how many windows are a side of one at most.
_IMAGES, _WINDOWS = 6, 6
# The grey of the ring about an object, 0 to 1.
_RING = 0.75
# The most characters that are drawn of a class's name.
LONGEST_NAME = 60


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Matplotlib as it comes, whatever the caller has set, and every text as it is: `$` begins no formula."""
    with (
        matplotlib.style.context(["default", {"text.parse_math": False, "hatch.linewidth": 0.6}]),
        warnings.catch_warnings(),
    ):
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def subplots(
    rows: int,
    columns: int,
    size: tuple[float, float],
    shared: bool = False,
    layout: Literal["constrained"] | None = None,
) -> tuple[Figure, np.ndarray]:
    """A figure that no window and no other code knows of, and its axes (rows, columns), whose ranges may be shared."""
    figure = Figure(figsize=size, layout=layout)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared)


@own_style()
def curves(history: list[dict[str, float]], path: Path) -> Path:
    """Loss and accuracy, or error, over the epochs, for training and, where there is one, validation."""
    figure, axes = subplots(1, 2, (9, 3.4))
    measure = "accuracy" if "accuracy" in history[0] else "mean_absolute_error"
    epochs = [row["epoch"] for row in history]
    for axis, key in zip(axes[0], ("loss", measure), strict=True):
        axis.plot(epochs, [row[key] for row in history], label="training", marker="." if len(epochs) < 20 else "")
        if f"val_{key}" in history[0]:
            values = [row[f"val_{key}"] for row in history]
            axis.plot(epochs, values, label="validation", marker="." if len(epochs) < 20 else "")
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
    figure, ((axis,),) = subplots(1, 1, (side, side))
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if classes <= 30:
        names = [shortened(name, LONGEST_NAME) for name in class_names]
        axis.set_xticks(range(classes), names, rotation=90)
        axis.set_yticks(range(classes), names)
        for row, column in np.argwhere(table):
            colour = "white" if shares[row, column] > 0.5 else "black"
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

    Of a model that knows a background the objects are drawn as circles, and the legend has their counts. Of a counter
    the density of one class is drawn, with its count (`zoo.density_plots` draws all of them). With a
    `canvas`, each pasted image's place is framed: white where the nearest cell is right, red with the true class's name
    where it is wrong.
    """
    score_map, class_index = summary.score_map, summary.class_index
    height, width = score_map.image_size
    scale = 9 / max(height, width)
    figure, ((axis,),) = subplots(1, 1, (width * scale + 1.6, height * scale))
    bottom, right = (side * summary.factor - 0.5 for side in summary.picture.shape[:2])
    axis.imshow(summary.picture, interpolation="nearest", extent=(-0.5, right, bottom, -0.5))
    axis.set(xlabel="pixels", xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    if canvas is not None:
        _frames(axis, score_map, canvas)
    shown: Sequence[int] = np.flatnonzero(summary.wins).tolist() if class_index is None else [class_index]
    colours = palette(len(score_map.class_names))
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
    handles = [Patch(color=colours[index], label=names[index]) for index in shown[:40]]
    axis.legend(handles=handles, title=title, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize=9)
    window = f"window {' x '.join(map(str, score_map.crop_places[1]))}"
    if score_map.scales:
        window += f" at scale {min(score_map.scales):g}"
    axis.set_title(
        f"{score_map.scores.shape[0]} x {score_map.scores.shape[1]} cells, stride {score_map.stride[0]:g}, "
        f"{window} pixels",
        fontsize=9,
    )
    return write_figure(figure, path, score_map.made_by)


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
        for name, box in influence.boxes.items():
            height, width = box[2] - box[0], box[3] - box[1]
            label = f"{name}, {height} x {width}: {influence.share(box):.1%} of the influence"
            axis.add_patch(
                Rectangle((box[1] - 0.5, box[0] - 0.5), width, height, fill=False, label=label, **_LINES[name])
            )
        axis.set(xlim=(view[1] - 0.5, view[3] - 0.5), ylim=(view[2] - 0.5, view[0] - 0.5), xlabel="column (pixels)")
    axes[0].set(ylabel="row (pixels)", title="over the image, the stronger the more opaque")
    axes[1].set_title("influence of each pixel on the score")
    handles = [*axes[0].patches, *([Patch(color=_BEYOND, label="beyond the image")] if shown != view else [])]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, facecolor="0.45", labelcolor="white")
    figure.suptitle(influence.sentence())
    return write_figure(figure, path, made_by)


@own_style()
def labels(
    scenes: Scenes, window: tuple[int, int], stride: tuple[int, int], path: Path, made_by: MadeBy | None = None
) -> Path:
    """What grid cells are to be answered with, over up to six training images that show every class.

    A square about the middle of a cell's window, as large as the stride, has the colour of the cell's class; hatched is
    the ring that counts for nothing, and without colour the background. Objects are outlined: boxes, and circles of the
    tolerance's radius about points. Of an image with more than six windows a side a part is drawn.
    """
    chosen = _showing_all(scenes)
    columns = min(len(chosen), 3)
    rows = -(-len(chosen) // columns)
    height, width = np.max([_shown_sides(scene, window) for scene in chosen], axis=0)
    scale = 5 / max(height, width)
    size = (columns * (width * scale + 0.5) + 1, rows * (height * scale + 0.6) + 0.8)
    figure, axes = subplots(rows, columns, size, layout="constrained")
    for axis, scene in zip(axes.flat, chosen, strict=False):
        _labelled(axis, scene, scenes, window, stride)
    for axis in axes.flat[len(chosen) :]:
        axis.axis("off")
    names = [shortened(name, LONGEST_NAME) for name in scenes.class_names]
    handles = [
        Patch(facecolor=colour, edgecolor=colour, label=name)
        for name, colour in zip(names, palette(len(names)), strict=True)
        if name != scenes.background
    ]
    handles += [
        Patch(facecolor=str(_RING), edgecolor="black", hatch="////", label="ring, counts for nothing"),
        Patch(facecolor="none", edgecolor="0.7", label=f"no colour: {names[scenes.background_index]}"),
        Patch(facecolor="none", edgecolor="black", ls="--", label=f"the model's window, {window[0]} x {window[1]}"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4))
    figure.suptitle(f"Labels of grid cells, stride {stride[0]}, in scanned pixels")
    return write_figure(figure, path, made_by)


def _showing_all(scenes: Scenes) -> list[Scene]:
    """Up to six training images: for each class the first that has it, then those with marks, with objects, any."""
    first: dict[int, str] = {}
    for scene in reversed(scenes.train):
        first |= dict.fromkeys(scene.objects.classes.tolist(), scene.name)
    wanted = set(list(first.values())[:_IMAGES])
    others = sorted(
        scenes.train, key=lambda scene: (scene.name not in wanted, not len(scene.marks), not len(scene.objects))
    )
    return others[:_IMAGES]


def _shown_sides(scene: Scene, window: tuple[int, int]) -> np.ndarray:
    """Height and width of what is drawn of an image, in scanned pixels."""
    return np.minimum(scene.pixels.shape[:2], np.multiply(window, _WINDOWS))


def _middles(window: int, stride: int, begin: float, end: float) -> np.ndarray:
    """The middles of the windows of an image's grid, and of its continuation to the border, from `begin` to `end`."""
    middles = np.arange(window / 2 % stride, end, stride)
    return middles[middles >= begin]


def _labelled(axis: Axes, scene: Scene, scenes: Scenes, window: tuple[int, int], stride: tuple[int, int]) -> None:
    """Draw an image, the labels of its grid's cells and its objects."""
    objects = scene.scanned_objects
    sides = _shown_sides(scene, window)
    middle = objects.centres[len(objects) // 2] if len(objects) else np.divide(scene.pixels.shape[:2], 2)
    corner = np.clip((middle - sides / 2).astype(int), 0, np.subtract(scene.pixels.shape[:2], sides))
    (top, left), (bottom, right) = corner, corner + sides
    pixels = np.asarray(scene.pixels[top:bottom, left:right])
    picture = Thumbnail(pixels, in_colour=True)
    read_by(pixels, picture)
    axis.imshow(picture.rgb, extent=(left, right, bottom, top))
    rows, columns = (
        _middles(side, step, begin, end)
        for side, step, begin, end in zip(window, stride, corner, corner + sides, strict=True)
    )
    found = scene_labels(scene, scenes, rows, columns, stride)
    # The last colour is the ring's, whose label is -1.
    colours = np.vstack([palette(len(scenes.class_names)), np.full(3, _RING)])
    opacity = np.select([found == IGNORED, found == scenes.background_index], [0.3, 0], 0.55)
    down, across = np.divide(stride, 2)
    extent = (columns[0] - across, columns[-1] + across, rows[-1] + down, rows[0] - down)
    axis.imshow(np.dstack([colours[found], opacity]), extent=extent, interpolation="nearest")
    # Contours pass between points: with several to a cell, near its border.
    finer = np.arange(-3, 4, 2) / 8
    y, x = ((each[:, None] + step * finer).ravel() for each, step in zip((rows, columns), stride, strict=True))
    ring = np.kron(found == IGNORED, np.ones((4, 4)))
    axis.contourf(x, y, ring, levels=[0.5, 1.5], colors="none", hatches=["////"])
    for box, index, is_point in zip(objects.boxes, objects.classes, objects.are_points, strict=True):
        look: dict[str, Any] = {"fill": False, "ec": colours[index], "lw": 1.3}
        if is_point:
            axis.add_patch(Circle((box[1], box[0]), scenes.scanned_tolerance(scene), **look))
        else:
            axis.add_patch(Rectangle((box[1], box[0]), box[3] - box[1], box[2] - box[0], **look))
    for colour, line_width, style in (("white", 2.5, "-"), ("black", 1.5, "--")):
        frame = Rectangle((left + 1, top + 1), window[1], window[0], fill=False, ec=colour, lw=line_width, ls=style)
        axis.add_patch(frame)
    axis.set(xlim=(left, right), ylim=(bottom, top))
    axis.set_title(f"{shortened(scene.name, 40)}: {len(objects)} objects", fontsize=9)


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
    """Circles about objects, in their classes' colours between dark rims; return how many each class has.

    `point`: points of the figure for a pixel of the image.
    """
    sides, colours = score_map.crop_places[1], palette(len(score_map.class_names))
    across = float(np.clip(2 * MARK * min(sides) * point, 4, 14))
    # The middle of the first pixel is at 0 here.
    y, x = found.centres.T - 0.5
    for colour, wide in (("black", 2.4), (colours[found.classes], 1.2)):
        axis.scatter(x, y, across**2, facecolors="none", edgecolors=colour, linewidths=wide)
    return np.bincount(found.classes, minlength=len(score_map.class_names)).tolist()


def _frames(axis: Axes, score_map: ScoreMap, canvas: "Canvas") -> None:
    last = np.array(score_map.scores.shape[:2]) - 1
    for box, label in zip(canvas.boxes, canvas.labels, strict=True):
        row, column = np.clip(score_map.geometry.nearest_cell(*box), 0, last)
        right = score_map.classes_of(np.asarray(score_map.scores[row, column])) == label
        top, left, bottom, end = box
        frame = Rectangle(
            (left - 0.5, top - 0.5), end - left, bottom - top, fill=False, edgecolor="white" if right else "red", lw=0.8
        )
        axis.add_patch(frame)
        if not right:
            axis.text(left, top - 1.5, shortened(score_map.class_names[label], LONGEST_NAME), color="red", fontsize=7)


def write_figure(figure: Figure, path: Path, made_by: MadeBy | None = None) -> Path:
    """Write a figure as a PNG file, which names what made it."""
    with replacing(path, made_by) as temporary:
        figure.savefig(temporary, dpi=_DPI, bbox_inches="tight", format="png")
    return Path(path)
