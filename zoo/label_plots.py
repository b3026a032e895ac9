"""The labels of grid cells over training images, as a PNG file."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Patch, Rectangle

from zoo.errors import shortened
from zoo.figures import LONGEST_NAME, class_patch, hatch_classes, hatch_where, own_style, rim, subplots, write_figure
from zoo.made_by import MadeBy
from zoo.objects.cell_labels import IGNORED, scene_labels
from zoo.objects.marked import Scene, Scenes
from zoo.scanning.overlay import palette
from zoo.scanning.thumbnails import Thumbnail, read_by

# How many images are drawn, and how many windows are a side of one at most.
_IMAGES, _WINDOWS = 6, 6
# The grey of the ring about an object, 0 to 1.
_RING = 0.75


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
        class_patch(index, len(names), name) for index, name in enumerate(names) if index != scenes.background_index
    ]
    handles += [
        Patch(facecolor=str(_RING), edgecolor="black", hatch="////", label="ring, counts for nothing"),
        Patch(facecolor="none", edgecolor="0.4", label=f"no colour: {names[scenes.background_index]}"),
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
    found = np.kron(found, np.ones((4, 4), int))
    hatch_where(axis, found == IGNORED, x, y)
    hatch_classes(axis, np.where(found == scenes.background_index, -1, found), x, y)
    for box, index, is_point in zip(objects.boxes, objects.classes, objects.are_points, strict=True):
        look: dict[str, Any] = {"fill": False, "ec": colours[index], "lw": 1.3, "path_effects": rim(1.3)}
        if is_point:
            axis.add_patch(Circle((box[1], box[0]), scenes.scanned_tolerance(scene), **look))
        else:
            axis.add_patch(Rectangle((box[1], box[0]), box[3] - box[1], box[2] - box[0], **look))
    for colour, line_width, style in (("white", 2.5, "-"), ("black", 1.5, "--")):
        frame = Rectangle((left + 1, top + 1), window[1], window[0], fill=False, ec=colour, lw=line_width, ls=style)
        axis.add_patch(frame)
    axis.set(xlim=(left, right), ylim=(bottom, top))
    axis.set_title(f"{shortened(scene.name, 40)}: {len(objects)} objects", fontsize=9)
