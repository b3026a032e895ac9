"""Scores of boxes in an image: one pass of the network's body, then RoI pooling and the head for each box.

Girshick 2015, "Fast R-CNN", section 2.1: the part of the feature map that a box covers is pooled to the size of map
that the Dense head was trained on, whatever the box's own size. A head that pools itself, over the whole map or over a
spatial pyramid (He et al. 2014, section 2.2), pools over the box's part directly.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import layers, ops

from zoo.errors import InputError, unknown
from zoo.network.graph import Step, needed_steps, run_steps
from zoo.network.network import Network
from zoo.network.positions import Span
from zoo.network.rules import global_pooling
from zoo.pictures import check_finite
from zoo.progress import track
from zoo.scanning.boxes import Boxes, BoxScores, check_boxes
from zoo.scanning.engines import check_scores
from zoo.scanning.memory import available, tile_memory
from zoo.scanning.pixels import Pixels, open_pixels
from zoo.scanning.roi import Pool, roi_pool
from zoo.scanning.scan import scan
from zoo.scanning.sizes import size_text
from zoo.settings import own_settings

Way = Literal["roi", "cells", "crops"]
WAYS = get_args(Way)

_ADAPTIVE = (layers.AdaptiveAveragePooling2D, layers.AdaptiveMaxPooling2D)
# Numbers that are gathered at once, for all bins of the boxes that are pooled together: 128 MiB in float32.
_AT_ONCE = 2**25
# Windows that "crops" gives the model at once; benchmarks/regions.py finds the best number for a machine.
CROPS_AT_ONCE = 64


@dataclass(frozen=True)
class _Collapse:
    """A step of the head that makes a vector of the map, the bins that it is given, and how they are pooled."""

    step: Step
    size: tuple[int, int]
    pool: Pool


class Regions:
    """A classifier in two parts: a body, run once over an image, and a head, run on every box."""

    def __init__(self, model: keras.Model):
        """Split `model` where its last feature map becomes a vector.

        Raises:
            InputError: where there is no such place or the map before it is not of finite reach, the training size is
                not known, or the model takes or gives several things.
        """
        self.network = Network.of(model)
        self.network.check_one_image()
        self.network.check_one_output()
        self.model, self.graph = model, self.network.graph
        self.window = _training_size(self.network)
        self._collapses, self.map = _split(self.network, self.window)
        self._trained = self._spans(self.window)
        *self.map_size, self._channels = self.network.shapes(self.window)[self.map]

    def feature_map(self, images: Any) -> Any:
        """The body's map of images of any size: (B, H, W, C) -> (B, rows, cols, channels)."""
        given = {self.graph.inputs[0]: ops.convert_to_tensor(images, dtype=self.model.inputs[0].dtype)}
        return run_steps(self.graph, given, [self.map])[self.map]

    def cells(self, boxes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """The regions of the feature map that boxes cover: pixels (n, 4) -> cells (n, 4), whole numbers.

        A box of the training size W covers as many cells as the training map has, h, and the first lies at its top
        left: in strides s, rows go from round(top / s) to h + round((bottom - W) / s), halves up. Of a padded map,
        W = h s, that is round(bottom / s), Caffe's rule; without padding, those are the cells that see nothing beyond
        the box, to the nearest stride. A box that would have none has the cell centred nearest to it. What lies beyond
        the map is cut off.

        Raises:
            InputError: where the image is too small for the body's layers.
        """
        here = self._spans(image_size)
        if min(span.size for span in here) < 1:
            raise InputError(
                f"image: received {image_size[0]} x {image_size[1]} pixels, of which the layers leave no map; "
                f"accepted: a larger one, the model was trained at {self.window[0]} x {self.window[1]}"
            )
        found = np.empty(np.shape(boxes), np.int32)
        for axis, (span, trained) in enumerate(zip(here, self._trained, strict=True)):
            start, end = (np.asarray(boxes, np.float64)[:, axis + corner] for corner in (0, 2))
            offset = span.start - trained.start
            first = (start - offset) / span.stride
            last = (end - offset - self.window[axis]) / span.stride + self.map_size[axis]
            centre = np.floor((first + last) / 2)
            first, last = np.floor(first + 0.5), np.floor(last + 0.5)
            none = last <= first
            first = np.clip(np.where(none, centre, first), 0, span.size - 1)
            found[:, axis] = first
            found[:, axis + 2] = np.clip(np.where(none, centre + 1, last), first + 1, span.size)
        return found

    def scores(self, maps: Any, regions: Any) -> Any:
        """What the head gives for regions of feature maps: (B, rows, cols, C) and (B, N, 4) -> (B * N, classes).

        Gradients flow to the maps and to the head's weights.
        """
        values = {}
        for each in self._collapses:
            pooled = roi_pool(maps, regions, each.size, each.pool)
            values[each.step.outputs[0]] = each.step.layer(ops.reshape(pooled, (-1, *each.size, maps.shape[-1])))
        (output,) = self.graph.outputs
        return run_steps(self.graph, values, [output])[output]

    def at_once(self, regions: np.ndarray) -> int:
        """How many of these regions can be pooled together in bounded memory."""
        rows, columns = (regions[:, 2:] - regions[:, :2]).max(0)
        gathered = max((rows + 2 * each.size[0]) * (columns + 2 * each.size[1]) for each in self._collapses)
        return max(_AT_ONCE // int(gathered * self._channels), 1)

    def _spans(self, size: tuple[int, int]) -> tuple[Span, Span]:
        return self.network.spans(tuple(size))[self.map]


def _split(network: Network, window: tuple[int, int]) -> tuple[list[_Collapse], int]:
    """Where the map becomes a vector, and the key of that map."""
    graph = network.graph
    steps = [graph.steps[index] for index in sorted(network.head.collapses)]
    makers = {key: step for step in graph.steps for key in step.outputs}
    shapes = network.shapes(window)
    found, sources = [], set()
    for step in steps:
        (source,), size, pool = step.inputs, None, "max"
        before = makers.get(source)
        kind = global_pooling(step, graph.axes)
        if kind is not None:
            size, pool = (1, 1), kind
        elif before is not None and isinstance(before.layer, _ADAPTIVE):
            size, (source,) = shapes[source][:2], before.inputs
            pool = "average" if isinstance(before.layer, layers.AdaptiveAveragePooling2D) else "max"
        found.append(_Collapse(step, size or shapes[source][:2], pool))
        sources.add(source)
    name = graph.model.name
    if not found:
        raise InputError(f"model {name!r}: gives a map; accepted: a classifier with its head, not converted")
    if len(sources) > 1:
        raise InputError(f"model {name!r}: its head begins at {len(sources)} maps; accepted: a head on the last one")
    (source,) = sources
    reach = network.spans(window)[source]
    if reach is None or any(np.isinf(span.extent) for span in reach):
        cause = "a layer's reach is not known" if reach is None else "a block inside pools over the whole image"
        raise InputError(f"model {name!r}: its last map is not local ({cause}); accepted for it: --way crops")
    given = {key for each in found for key in each.step.outputs}
    head = needed_steps(graph.steps, given, graph.outputs)
    if any(graph.inputs[0] in graph.steps[index].inputs for index in head):
        raise InputError(f"model {name!r}: its head takes more than the last map; accepted: that alone")
    return found, source


@own_settings()
def score_boxes(
    model: keras.Model,
    image: np.ndarray | str | Path,
    boxes: Sequence | Boxes,
    way: Way = "roi",
    progress: bool = False,
) -> BoxScores:
    """Score boxes in an image, which share what they can.

    Args:
        model: a classifier with its head.
        image: (H, W) or (H, W, C) raw pixels, or a file.
        boxes: (n, 4) in pixels, (top, left, bottom, right), half-open, or those of `zoo.scanning.boxes.read_boxes`;
            each overlaps the image. Of one that reaches beyond it, the part inside is scored.
        way: "roi": the body runs once, and each box's part of its map is pooled and given to the head; boxes of any
            size. "cells": the score map is scanned once, and each box has the scores of the cell whose window is
            centred nearest. "crops": the model itself runs on the window of its training size that is centred at each
            box, moved into the image where it would end beyond it.
        progress: show a bar, on a terminal.

    Raises:
        InputError: for another way, bad boxes or images, scores that are not finite, or a model that cannot be split
            (see `Regions`).
    """
    if way not in WAYS:
        raise InputError(unknown("way", way, WAYS))
    network = Network.of(model)
    network.check_one_image()
    network.check_one_output()
    with open_pixels(model, image) as source:
        further = boxes.further if isinstance(boxes, Boxes) else ()
        given = check_boxes(boxes, source.shape[:2])
        boxes = np.clip(given, 0, [*source.shape[:2], *source.shape[:2]])
        if way == "cells":
            score_map = scan(model, source, progress=progress)
            last = np.array(score_map.scores.shape[:2]) - 1
            nearest = np.array([score_map.geometry.nearest_cell(*box) for box in boxes.tolist()])
            rows, columns = np.clip(nearest, 0, last).T
            scores = score_map.scores[rows, columns]
        else:
            scores = (_by_regions if way == "roi" else _by_crops)(model, source, boxes, progress)
    beyond = int((boxes != given).any(1).sum())
    return BoxScores(given, scores, network.class_names, network.outputs_are[0], further, beyond)


def _by_regions(model: keras.Model, source: Pixels, boxes: np.ndarray, progress: bool) -> np.ndarray:
    regions = Regions(model)
    height, width = source.shape[:2]
    cells = regions.cells(boxes, (height, width))
    need, room = tile_memory(regions.network.up_to(regions.map))(height, width), available()
    if need > room:
        raise InputError(
            f"image: the feature map of {height} x {width} pixels takes about {size_text(need)} to compute; "
            f"accepted for the way 'roi': what fits {size_text(room)}; 'cells' and 'crops' take images of any size"
        )
    maps = regions.feature_map(check_finite(source[:, :].astype(np.float32), source.name)[None])
    # Boxes of like size together: the largest of those pooled together decides what all of them take.
    order = np.argsort((cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1]), kind="stable")
    scores = np.empty((len(boxes), model.output_shape[-1]), np.float32)
    for part in _parts(order, lambda rest: regions.at_once(cells[rest]), progress):
        found = ops.convert_to_numpy(regions.scores(maps, cells[part][None]))
        scores[part] = _checked(found, part, model)
    return scores


def _by_crops(model: keras.Model, source: Pixels, boxes: np.ndarray, progress: bool) -> np.ndarray:
    window, size = _training_size(Network.of(model)), np.array(source.shape[:2])
    if (size < window).any():
        raise InputError(
            f"image: received {size[0]} x {size[1]} pixels; accepted: at least one window of {window[0]} x {window[1]}"
        )
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    corners = np.clip(np.floor(centres - np.array(window) / 2 + 0.5), 0, size - window).astype(int)
    scores = np.empty((len(boxes), model.output_shape[-1]), np.float32)
    for part in _parts(np.arange(len(boxes)), lambda _: CROPS_AT_ONCE, progress):
        crops = [source[top : top + window[0], left : left + window[1]] for top, left in corners[part]]
        pixels = check_finite(np.stack(crops).astype(np.float32), source.name)
        scores[part] = _checked(ops.convert_to_numpy(model(pixels, training=False)), part, model)
    return scores


def _checked(scores: np.ndarray, boxes: np.ndarray, model: keras.Model) -> np.ndarray:
    """The scores of some boxes, if they are finite."""
    broken = ~np.isfinite(scores).all(-1)
    return check_scores(scores, f"box {boxes[broken].min() + 1}" if broken.any() else "boxes", model)


def _parts(order: np.ndarray, at_once: Callable[[np.ndarray], int], progress: bool) -> Iterator[np.ndarray]:
    """Cut `order` into parts of at most `at_once(part)`, the largest boxes of each last."""
    parts = []
    while len(order):
        count = len(order)
        while count > (fitting := at_once(order[:count])):
            count = max(fitting, count // 2)
        parts.append(order[:count])
        order = order[count:]
    return iter(track(parts, "scoring boxes", len(parts)) if progress else parts)


def _training_size(network: Network) -> tuple[int, int]:
    size = network.own_size
    if size is None:
        raise InputError(
            f"model {network.name!r}: its training size is not known; accepted: a model of fixed size, or one that was "
            "saved with it"
        )
    return size
