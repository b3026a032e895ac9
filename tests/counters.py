"""Counters set by hand, which weigh how bright their windows are, and images of objects that weigh the same."""

from types import SimpleNamespace

import keras
import numpy as np
from keras import layers

from zoo.card import Card, attach
from zoo.network.geometry import Geometry
from zoo.scanning.score_map import ScoreMap

NAMES = ("disc, bright", "ring")
# Samples of one object together.
WEIGHT = 600.0


def model(window=(16, 12), stride=4, scale=None, **card):
    """A padding-free counter of two classes, a channel each: the sum of the window's samples, in objects."""
    image = keras.Input((*window, 2))
    x = layers.AveragePooling2D(stride)(image)
    x = layers.Dense(2, name="counts")(layers.Flatten()(x))
    net = keras.Model(image, x)
    cells = window[0] // stride * (window[1] // stride)
    kernel = np.tile(np.eye(2), (cells, 1)) * stride**2 / WEIGHT
    net.get_layer("counts").set_weights([kernel, np.zeros(2)])
    known = {"class_names": NAMES, "image_size": window, "target": "count", "dtype": "uint8", "fill": (0.0,)}
    return attach(net, Card(**known, scale=scale, **card))


def picture(size, places):
    """Samples of 0 but for objects of 2 x 2 pixels, (class, y, x) of the top left one each: (H, W, 2) uint8."""
    pixels = np.zeros((*size, 2), np.uint8)
    for index, y, x in places:
        pixels[y : y + 2, x : x + 2, index] += np.uint8(WEIGHT / 4)
    return pixels


def counted(scores, grid, class_names=NAMES, **about):
    """The map of a scan with these scores on a grid (see `zoo.scanning.grid.Grid`), border "full"."""
    given = {"border": "full", "scanned": np.ones(grid.shape, bool), **about}
    return ScoreMap(
        scores, grid.geometry, class_names, grid.image_size, grid.starts, grid.window, outputs="counts", **given
    )


def plain_map(rows=19, columns=36, height=120, width=160, classes=3, seed=0, **about):
    """A map of random numbers, some below 0: windows of 14 x 11 pixels, stride 6 x 4, the first beyond the image."""
    scores = np.random.default_rng(seed).normal(1, 1.5, (rows, columns, classes)).astype(np.float32)
    starts = (-3 + 6 * np.arange(rows), 2 + 4 * np.arange(columns))
    geometry = Geometry((14, 11), (6, 4), (14, 11), (-3, 2), (height, width), SimpleNamespace(axes=2), None)
    return ScoreMap(
        scores, geometry, ("red, large", "white", "c")[:classes], (height, width), starts, (14, 11),
        **{"scanned": np.ones((rows, columns), bool), "outputs": "counts", **about},
    )  # fmt: skip
