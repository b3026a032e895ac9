"""What a grid cell is to be answered with: the one definition, of training, evaluation and pictures alike."""

import math

import numpy as np

from zoo.objects.marked import Objects, Scene, Scenes

# The label of a cell that counts for nothing: too near to an object for background, too far for its class.
IGNORED = -1
# The part of the way from an object's centre to its border within which a cell is the object's.
INNER = 0.5


def cell_labels(
    objects: Objects,
    rows: np.ndarray,
    columns: np.ndarray,
    background: int,
    stride: tuple[float, float],
    tolerance: float = 0.0,
) -> np.ndarray:
    """Label the cells of a grid: the class of the object whose centre lies near the middle of a cell's window.

    How near is measured by the object: 0 at its centre, 1 at the ellipse in its box (a circle of the radius
    `tolerance` about a point). A cell has the class of the nearest object up to 1/2, is ignored beyond that up to 1,
    and is background elsewhere. An ellipse is taken to have a radius of at least the square root of 2 times the stride,
    so that every object whose centre the grid covers labels a cell. A place that is marked as background is an object
    of that class, without a ring.

    Args:
        objects: in scanned pixels.
        rows: the middles of the windows of each row of cells, (R,), in scanned pixels.
        columns: those of each column of cells, (S,).
        background: the index of the background's class, or `IGNORED` where nothing is known beside the objects.
        stride: scanned pixels between cells, (vertical, horizontal).
        tolerance: the radius of an object that is a point, in scanned pixels.

    Returns:
        The classes' indices, (R, S) int32; `IGNORED` in the ring about an object.
    """
    labels = np.full((len(rows), len(columns)), background, np.int32)
    nearest = np.full(labels.shape, np.inf)
    reaches = np.maximum(objects.reaches(tolerance), math.sqrt(2) * np.asarray(stride))
    for centre, reach, index in zip(objects.centres, reaches, objects.classes, strict=True):
        down, across = (
            slice(np.searchsorted(middles, at - far), np.searchsorted(middles, at + far, side="right"))
            for middles, at, far in zip((rows, columns), centre, reach, strict=True)
        )
        y, x = (rows[down] - centre[0]) / reach[0], (columns[across] - centre[1]) / reach[1]
        distance = np.hypot(y[:, None], x[None, :])
        part = np.s_[down, across]
        nearer = distance < nearest[part]
        nearest[part] = np.where(nearer, distance, nearest[part])
        labels[part] = np.where(nearer & (distance <= INNER), index, labels[part])
        if index != background:
            ring = nearer & (distance > INNER) & (distance <= 1)
            labels[part] = np.where(ring, IGNORED, labels[part])
    return labels


def scene_labels(
    scene: Scene, scenes: Scenes, rows: np.ndarray, columns: np.ndarray, stride: tuple[float, float]
) -> np.ndarray:
    """Label the cells of a grid over an image and its border: `cell_labels` in scanned pixels.

    A cell whose window's middle lies beyond the image is ignored: nothing is there. Of an image that is known at its
    marks alone, so is every cell that is of none of them.

    Args:
        scene: the image.
        scenes: what it is one of, for the background and the tolerance.
        rows: the middles of the windows of each row of cells, (R,), in scanned pixels.
        columns: those of each column of cells, (S,).
        stride: scanned pixels between cells, (vertical, horizontal).

    Returns:
        The classes' indices, (R, S) int32; `IGNORED` where a cell counts for nothing.
    """
    background, marks = scenes.background_index, scene.scanned_marks
    # Last, so that their cells leave an object's ring as it is.
    objects = Objects.joined(scene.scanned_objects, marks.at(marks.classes == background))
    elsewhere = background if scene.is_labelled else IGNORED
    labels = cell_labels(objects, rows, columns, elsewhere, stride, scenes.scanned_tolerance(scene))
    height, width = scene.pixels.shape[:2]
    labels[(rows < 0) | (rows >= height)] = IGNORED
    labels[:, (columns < 0) | (columns >= width)] = IGNORED
    return labels


def marked_cells(
    scene: Scene, scenes: Scenes, rows: np.ndarray, columns: np.ndarray, stride: tuple[float, float]
) -> np.ndarray:
    """Which cells of a grid are those of marks, (R, S) bool; the arguments are those of `scene_labels`."""
    tolerance = scenes.scanned_tolerance(scene)
    return cell_labels(scene.scanned_marks, rows, columns, IGNORED, stride, tolerance) != IGNORED
