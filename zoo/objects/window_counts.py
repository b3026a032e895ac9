"""How many objects lie in the window of each grid cell, and what a map of such numbers adds up to.

Cohen et al. 2017, "Count-ception: Counting by fully convolutional redundant counting" (arXiv:1703.08710, section 3):
the windows overlap, an object is counted by each that its centre lies in, and the sum over the map is divided by how
many windows a pixel lies in.
"""

from dataclasses import replace

import numpy as np

from zoo.objects.marked import Objects, Pair, Scene


def windows_per_pixel(window: Pair, stride: Pair) -> float:
    """In how many windows a pixel lies that is far from every border: on average, where the window is no multiple."""
    return float(np.prod(np.divide(window, stride)))


def is_even(window: Pair, stride: Pair) -> bool:
    """Whether every such pixel lies in equally many windows, so that sums of true numbers are exact counts."""
    return all(side % step == 0 for side, step in zip(window, stride, strict=True))


def window_counts(
    objects: Objects, rows: np.ndarray, columns: np.ndarray, window: Pair, num_classes: int
) -> np.ndarray:
    """How many objects of each class have their centre in each cell's window.

    A window is half-open, so that a centre on the line between two neighbouring ones is in one of them.

    Args:
        objects: in scanned pixels.
        rows: the first pixel of the windows of each row of cells, (R,), rising.
        columns: that of each column of cells, (S,), rising.
        window: its sides in scanned pixels.
        num_classes: K.

    Returns:
        The numbers, (R, S, K) float32.
    """
    counts = np.zeros((len(rows), len(columns), num_classes), np.float32)
    for centre, index in zip(objects.centres, objects.classes, strict=True):
        down, across = (
            slice(np.searchsorted(starts, at - side, side="right"), np.searchsorted(starts, at, side="right"))
            for starts, at, side in zip((rows, columns), centre, window, strict=True)
        )
        counts[down, across, index] += 1
    return counts


def scene_counts(scene: Scene, rows: np.ndarray, columns: np.ndarray, window: Pair, num_classes: int) -> np.ndarray:
    """`window_counts` of an image, beyond which its windows may reach; what lies on its last line is inside."""
    inside = np.nextafter(np.asarray(scene.pixels.shape[:2], float), 0)
    objects = scene.scanned_objects
    objects = replace(objects, centres=np.minimum(objects.centres, inside))
    return window_counts(objects, rows, columns, window, num_classes)
