"""The picture of an evaluation on whole images, and the images with the most errors.

Of objects that are found: curves of precision and recall. Of objects that are counted: their counts by the true ones.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle

from zoo.count_evaluation import CountEvaluation, ImageCounts
from zoo.dense_evaluation import DenseEvaluation, SceneResult
from zoo.errors import shortened
from zoo.figures import LINES, LONGEST_NAME, MARKERS, own_style, rim, subplots, write_figure
from zoo.made_by import MadeBy
from zoo.objects.marked import Scene
from zoo.scanning.overlay import palette, pattern
from zoo.scanning.thumbnails import view_below

# How many images are drawn, in how many columns, and the most pixels a side of one.
_WORST, _COLUMNS, _PIXELS = 6, 3, 600
# Classes beyond these have no curve.
_CURVES = 20
_MISSED: dict[str, Any] = {"fill": False, "ls": (0, (3, 2)), "lw": 1.6, "path_effects": rim(1.6)}
# A cross within a rim of its own, whose ends a path's effect would leave out.
_FALSE: dict[str, Any] = {"ls": "", "marker": "X", "mec": "black", "mew": 0.7, "ms": 9}
# Classes beyond these have no scatter.
_SCATTERS = 6


@own_style()
def dense(result: DenseEvaluation, path: Path, made_by: MadeBy | None = None) -> Path:
    """Precision over recall by class, what is found by the thresholds marked; and the six images with the most errors.

    There a dot is a peak that has an object, a cross a false one, a dashed line an object that was missed, each in its
    class's colour. Of the second ten classes, whose colours repeat, lines are dashed and dots are squares, and so on.
    """
    worst = sorted(result.images, key=lambda each: -each.errors)[:_WORST]
    rows = -(-len(worst) // _COLUMNS)
    figure, axes = subplots(1 + rows, _COLUMNS, (13, 4.2 * (1 + rows)), layout="constrained")
    colours = {name: palette(len(result.class_names))[index] for index, name in enumerate(result.class_names)}
    _curves(axes[0, 0], result, colours)
    for axis in axes[0, 1:]:
        axis.axis("off")
    _legends(axes[0, 1], axes[0, 0], colours)
    by_index = [colours[name] for name in result.class_names]
    for axis, each in zip(axes[1:].flat, worst, strict=False):
        _image(axis, each, by_index, result.tolerance or 0.0)
    for axis in axes[1:].flat[len(worst) :]:
        axis.axis("off")
    return write_figure(figure, path, made_by)


@own_style()
def counts(result: CountEvaluation, path: Path, made_by: MadeBy | None = None) -> Path:
    """Counts by the true ones, a point for each image, of up to six classes; and the six images with the largest error.

    There a dot is a labelled object, in its class's colour.
    """
    names = result.class_names[:_SCATTERS]
    worst = sorted(result.images, key=lambda each: -np.abs(each.found - each.labelled).sum())[:_WORST]
    above = -(-len(names) // _COLUMNS)
    rows = above + -(-len(worst) // _COLUMNS)
    figure, axes = subplots(rows, _COLUMNS, (13, 4.2 * rows), layout="constrained")
    colours = palette(len(result.class_names))
    for axis in axes.flat:
        axis.axis("off")
    for index, (axis, name) in enumerate(zip(axes[:above].flat, names, strict=False)):
        axis.axis("on")
        _scatter(axis, result, index, name, colours[index])
    for axis, each in zip(axes[above:].flat, worst, strict=False):
        axis.axis("on")
        _counted(axis, each, result.class_names, colours)
    return write_figure(figure, path, made_by)


def _scatter(axis: Axes, result: CountEvaluation, index: int, name: str, colour: np.ndarray) -> None:
    true, found = (np.array([getattr(each, key)[index] for each in result.images]) for key in ("labelled", "found"))
    ends = min(0.0, found.min()), 1.05 * max(true.max(), found.max(), 1.0)
    axis.plot(ends, ends, color="0.5", lw=1)
    axis.plot(true, found, **_dot(index, colour))
    scores = result.counts[name]
    title = f"mean absolute error {scores.mean_absolute_error:.2f}, bias {scores.bias:+.2f}"
    axis.set(xlim=ends, ylim=ends, xlabel="labelled", ylabel="found", aspect="equal")
    axis.set_title(f"{shortened(name, LONGEST_NAME)}, {len(true)} images: {title}", fontsize=9)
    axis.grid(alpha=0.3)


def _counted(axis: Axes, result: ImageCounts, names: tuple[str, ...], colours: np.ndarray) -> None:
    """An image with its labelled objects."""
    scene = result.scene
    _picture(axis, scene)
    for (y, x), kind in zip(scene.objects.centres, scene.objects.classes, strict=True):
        axis.plot(x, y, **_dot(kind, colours[kind], 4))
    shown = zip(names, result.labelled, result.found, strict=True)
    numbers = "; ".join(f"{shortened(name, 15)} {true:.0f}, found {found:.1f}" for name, true, found in shown)
    axis.set_title(f"{shortened(scene.name, LONGEST_NAME)}\n{shortened(numbers, 60)}", fontsize=9)


def _curves(axis: Axes, result: DenseEvaluation, colours: dict[str, np.ndarray]) -> None:
    for name, matches in list(result.curves.items())[:_CURVES]:
        index = result.class_names.index(name)
        precision, recall, _ = matches.curve()
        scores = result.classes[name]
        area = "none" if scores.average_precision is None else f"{scores.average_precision:.3f}"
        f1 = "none" if scores.f1 is None else f"{scores.f1:.3f}"
        label = f"{shortened(name, LONGEST_NAME)}: {scores.n:,} objects, F1 {f1}, average precision {area}"
        look: dict[str, Any] = {"color": colours[name], "ls": LINES[pattern(index)], "path_effects": rim(1.5)}
        axis.plot(recall, precision, label=label, drawstyle="steps-post", **look)
        if scores.precision is not None and scores.recall is not None:
            axis.plot(scores.recall, scores.precision, **_dot(index, colours[name], 8))
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axis.set_title(f"{result.n_images} images; dots: the objects found, winners above the thresholds", fontsize=10)
    axis.grid(alpha=0.3)


def _legends(axis: Axes, curves: Axes, colours: dict[str, np.ndarray]) -> None:
    """What lines and marks mean, in a field of their own."""
    handles, labels = curves.get_legend_handles_labels()
    first = axis.legend(handles, labels, loc="upper left", borderaxespad=0, frameon=False)
    axis.add_artist(first)
    marks = [
        Line2D([], [], **_dot(0, "white"), label="found, and there"),
        Line2D([], [], color="white", label="found, and not there", **_FALSE),
        Line2D([], [], ls=_MISSED["ls"], lw=_MISSED["lw"], color="black", label="there, and not found"),
    ]
    axis.legend(handles=marks, loc="lower left", borderaxespad=0, frameon=False)


def _image(axis: Axes, result: SceneResult, colours: list[np.ndarray], tolerance: float) -> None:
    """An image with its hits, false peaks and missed objects, in its own pixels."""
    scene, found = result.scene, result.found
    _picture(axis, scene)
    for index in np.flatnonzero(result.missed):
        (y, x), (down, across) = scene.objects.centres[index], scene.objects.sides[index]
        colour = colours[scene.objects.classes[index]]
        if down or across:
            axis.add_patch(Rectangle((x - across / 2, y - down / 2), across, down, ec=colour, **_MISSED))
        else:
            axis.add_patch(Circle((x, y), tolerance, ec=colour, **_MISSED))
    for kind, (y, x), match in zip(found.classes, found.centres, result.matches, strict=True):
        colour = colours[kind]
        if match < 0:
            axis.plot(x, y, color=colour, **_FALSE)
        else:
            axis.plot(x, y, **_dot(kind, colour))
    false, missed = int((result.matches < 0).sum()), int(result.missed.sum())
    axis.set_title(
        f"{shortened(scene.name, LONGEST_NAME)}\n{false} false, {missed} missed of {len(scene.objects)}", fontsize=9
    )


def _dot(index: int, colour: Any, size: float = 6) -> dict[str, Any]:
    """How a dot of a class looks."""
    return {"ls": "", "marker": MARKERS[pattern(index)], "color": colour, "mec": "black", "mew": 0.7, "ms": size}


def _picture(axis: Axes, scene: Scene) -> None:
    """An image, in its own pixels."""
    height, width = scene.image_size
    view = view_below(scene.pixels, _PIXELS, in_colour=True)
    shown = np.clip(view, 0, 255).astype(np.uint8)
    axis.imshow(shown if shown.shape[-1] == 3 else shown[..., 0], cmap="gray", extent=(0, width, height, 0))
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.set_xlabel("pixels", fontsize=7, labelpad=1)
    axis.tick_params(labelsize=7)
