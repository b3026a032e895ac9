"""What a user's marks make of an image's labels: objects that were missed, of another class, or none."""

from dataclasses import replace

import numpy as np

from zoo.objects.cell_labels import INNER
from zoo.objects.marked import Objects, Scene, Scenes
from zoo.objects.thresholds import usual_size


def corrected(scene: Scene, places: np.ndarray, classes: np.ndarray, scenes: Scenes, sizes: np.ndarray) -> Scene:
    """An image with the labels that marks make right, one after the other, and the marks.

    A mark means the object of its own class in whose ellipse it lies (see `zoo.objects.cell_labels`), the nearest one:
    the label was right. Else it means the nearest object of another class whose cell it would be, up to half the way to
    the border: that becomes one of the mark's class, or is no object where the mark is background. Else it is an object
    of its own, or a place where nothing is, a square of its class's size.

    Args:
        scene: the image, with its labels.
        places: y and x of each mark, in continuous pixels of the given image, (n, 2).
        classes: the index of each one's class, (n,); the background's for nothing.
        scenes: what the image is one of.
        sizes: each class's, (K,); see `usual_sizes`.
    """
    background, tolerance = scenes.background_index, scenes.tolerance or 0.0
    sides = np.divide(sizes[:, None], scene.scale)
    objects, nothing, is_marked = scene.objects, Objects.none(), np.zeros(len(scene.objects), bool)
    for place, index in zip(places, classes, strict=True):
        own = Objects(np.reshape(place, (1, 2)), sides[[index]], np.array([index], np.int32))
        distances = objects.distances(place, tolerance)
        same = np.flatnonzero((objects.classes == index) & (distances <= 1))
        other = np.flatnonzero((objects.classes != index) & (distances <= INNER))
        nearest = min(same if len(same) else other, key=distances.__getitem__, default=None)
        # Of two marks at one place the last holds.
        nothing = nothing.at(nothing.distances(place, tolerance) > INNER)
        if index == background:
            nothing = Objects.joined(nothing, own)
            kept = np.arange(len(objects)) != nearest
            objects, is_marked = objects.at(kept), is_marked[kept]
        elif nearest is None:
            objects, is_marked = Objects.joined(objects, own), np.append(is_marked, True)
        else:
            numbers = np.where(np.arange(len(objects)) == nearest, index, objects.classes)
            objects = replace(objects, classes=numbers.astype(np.int32))
            is_marked[nearest] = True
    return replace(scene, objects=objects, marks=Objects.joined(objects.at(is_marked), nothing))


def usual_sizes(scenes: Scenes) -> np.ndarray:
    """The usual size in scanned pixels of each class's labelled objects in the training images, (K,).

    The background's, and that of a class that has none there, is the usual size of all together.
    """
    labelled = [(scene.scanned_objects, scenes.scanned_tolerance(scene)) for scene in scenes.train]
    sizes = np.array([usual_size(labelled, index) for index in range(len(scenes.class_names))])
    alike = [(replace(own, classes=np.zeros(len(own), np.int32)), tolerance) for own, tolerance in labelled]
    return np.where(sizes > 0, sizes, usual_size(alike, 0))
