"""Scores of boxes in an image: one pass of the network's body, then RoI pooling and the head for each box.

Girshick 2015, "Fast R-CNN", section 2.1: the part of the feature map that a box covers is pooled to the size of map
that the Dense head was trained on, whatever the box's own size. A head that pools itself, over the whole map or over a
spatial pyramid (He et al. 2014, section 2.2), pools over the box's part directly.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import layers, ops

from zoo.dense.forward import forward_tensors
from zoo.dense.head import head_collapses
from zoo.dense.memory import available, size_text, tile_memory
from zoo.dense.outputs import Outputs, outputs_are, to_probabilities
from zoo.dense.pixels import Pixels, check_finite, open_pixels
from zoo.dense.positions import global_pooling
from zoo.dense.program import Span, spans
from zoo.dense.scan import scan
from zoo.errors import InputError, unknown
from zoo.graph import Graph, Step, check_one_image, check_one_output, shapes_at, trace
from zoo.progress import track
from zoo.saving import card, check_output, class_names, replacing

Pool = Literal["max", "average"]
Way = Literal["roi", "cells", "crops"]
WAYS = get_args(Way)

_SIDES = ("top", "left", "bottom", "right")
_OTHER_NAMES = ("ymin", "xmin", "ymax", "xmax")
_ADAPTIVE = (layers.AdaptiveAveragePooling2D, layers.AdaptiveMaxPooling2D)
_ENDINGS = (".csv", ".json")
# Numbers that are gathered at once, for all bins of the boxes that are pooled together: 128 MiB in float32.
_AT_ONCE = 2**25
# Windows that "crops" gives the model at once; benchmarks/regions.py finds the best number for a machine.
CROPS_AT_ONCE = 64


def roi_pool(maps: Any, regions: Any, size: tuple[int, int], pool: Pool = "max") -> Any:
    """Pool regions of feature maps to one size: (B, H, W, C) and (B, N, 4) -> (B, N, h, w, C).

    A region is (top, left, bottom, right), half-open, in whole cells; what lies beyond the map is cut off. Of its n
    rows, bin i of h holds those from floor(i n / h) to ceil((i + 1) n / h), columns alike, as in Caffe's RoIPooling: a
    bin is never empty, and where n < h neighbours share rows. With n = h the region is handed on as it is.
    Gradients flow to the maps.
    """
    height, width = ops.shape(maps)[1:3]
    rows, row_weights = _bins(regions[..., 0], regions[..., 2], height, size[0], maps.dtype)
    columns, column_weights = _bins(regions[..., 1], regions[..., 3], width, size[1], maps.dtype)
    images = ops.reshape(ops.arange(ops.shape(maps)[0], dtype="int32"), (-1, 1, 1, 1, 1, 1))
    where = (images * height + rows[..., None, None]) * width + columns[:, :, None, None]
    taken = ops.take(ops.reshape(maps, (-1, maps.shape[-1])), where, axis=0)  # (B, N, h, rows, w, columns, C)
    if pool == "max":
        return ops.max(taken, axis=(3, 5))
    weights = row_weights[..., None, None, None] * column_weights[:, :, None, None, :, :, None]
    return ops.sum(taken * weights, axis=(3, 5))


def _bins(first: Any, last: Any, side: int, count: int, dtype: Any) -> tuple[Any, Any]:
    """The cells of each bin along one axis, and what each weighs in a mean: (B, N) -> (B, N, bins, cells) twice.

    Shorter bins repeat their last cell, with weight 0.
    """
    first = ops.clip(ops.cast(first, "int32"), 0, side - 1)[..., None]
    last = ops.clip(ops.cast(last, "int32")[..., None], first + 1, side)
    index = ops.arange(count, dtype="int32")
    starts = first + ops.floor_divide(index * (last - first), count)
    ends = first - ops.floor_divide(-(index + 1) * (last - first), count)
    lengths = ends - starts
    step = ops.arange(_longest(lengths, side, count), dtype="int32")
    cells = ops.minimum(starts[..., None] + step, ends[..., None] - 1)
    inside = step < lengths[..., None]
    return cells, ops.cast(inside, dtype) / ops.cast(lengths[..., None], dtype)


def _longest(lengths: Any, side: int, count: int) -> Any:
    """Cells of the longest bin; while JAX compiles, when no number is known yet, those of the whole map's bins."""
    try:
        return int(ops.max(lengths))
    except TypeError:
        return -(-side // count) + 1 if keras.backend.backend() == "jax" else ops.max(lengths)


@keras.saving.register_keras_serializable("zoo")
class RoIPooling(layers.Layer):
    """Regions of feature maps, pooled to one size: [(B, H, W, C), (B, N, 4)] -> (B, N, h, w, C).

    With `levels` instead of `size`, a spatial pyramid (He et al. 2014, section 2.2): the region is pooled to level x
    level bins for each level, to (B, N, sum of level * level, C). Regions and bins are those of `roi_pool`; the regions
    of pixel boxes are `Regions.cells`. A head is trained through this layer as through any other.
    """

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        levels: Sequence[int] | None = None,
        pool: Pool = "max",
        **kwargs: Any,
    ):
        """Take either the `size` (h, w) or the `levels` of the output, and how to pool.

        Raises:
            InputError: for both or neither, sides below 1, or another kind of pooling.
        """
        super().__init__(**kwargs)
        sides = tuple(size or ()) + tuple(levels or ())
        if (size is None) == (levels is None) or not sides or min(sides) < 1 or (size and len(size) != 2):
            raise InputError(
                f"RoIPooling: received size={size}, levels={levels}; accepted: size=(height, width) or levels=(4, 2, 1)"
            )
        if pool not in get_args(Pool):
            raise InputError(unknown("pool", pool, get_args(Pool)))
        self.size = None if size is None else tuple(size)
        self.levels = None if levels is None else tuple(levels)
        self.pool = pool

    def call(self, inputs: Sequence[Any]) -> Any:
        """Pool: [(B, H, W, C), (B, N, 4)] -> (B, N, h, w, C), or (B, N, bins, C) with levels."""
        maps, regions = inputs
        if self.size is not None:
            return roi_pool(maps, regions, self.size, self.pool)
        pooled = (roi_pool(maps, regions, (level, level), self.pool) for level in self.levels)
        shape = ops.shape(regions)
        flat = [
            ops.reshape(bins, (shape[0], shape[1], level**2, maps.shape[-1]))
            for level, bins in zip(self.levels, pooled, strict=True)
        ]
        return ops.concatenate(flat, axis=2)

    def compute_output_shape(self, input_shape: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """The shape of what `call` gives."""
        maps, regions = input_shape
        bins = self.size or (sum(level**2 for level in self.levels),)
        return (maps[0], regions[1], *bins, maps[-1])

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this layer anew."""
        return {**super().get_config(), "size": self.size, "levels": self.levels, "pool": self.pool}


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
        self.graph = trace(model)
        check_one_image(self.graph)
        check_one_output(model)
        self.model = model
        self.window = _training_size(model)
        self._collapses, self.map = _split(self.graph, self.window)
        self._trained = self._spans(self.window)
        *self.map_size, self._channels = shapes_at(self.graph, self.window)[self.map]
        self.body = replace(self.graph, outputs=(self.map,), steps=tuple(_steps_to(self.graph, self.map)))
        self._head = _steps_from(self.graph, self._collapses)

    def feature_map(self, images: Any) -> Any:
        """The body's map of images of any size: (B, H, W, C) -> (B, rows, cols, channels)."""
        return forward_tensors(self.body)(images)

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
        return _run(self._head, values)[self.graph.outputs[0]]

    def at_once(self, regions: np.ndarray) -> int:
        """How many of these regions can be pooled together in bounded memory."""
        rows, columns = (regions[:, 2:] - regions[:, :2]).max(0)
        gathered = max((rows + 2 * each.size[0]) * (columns + 2 * each.size[1]) for each in self._collapses)
        return max(_AT_ONCE // int(gathered * self._channels), 1)

    def _spans(self, size: tuple[int, int]) -> tuple[Span, Span]:
        return spans(self.graph, tuple(size))[self.map]


def _split(graph: Graph, window: tuple[int, int]) -> tuple[list[_Collapse], int]:
    """Where the map becomes a vector, and the key of that map."""
    steps = [graph.steps[index] for index in sorted(head_collapses(graph))]
    makers = {key: step for step in graph.steps for key in step.outputs}
    shapes = shapes_at(graph, window)
    found, sources = [], set()
    for step in steps:
        (source,), size, pool = step.inputs, None, "max"
        before = makers.get(source)
        kind = global_pooling(step, graph.layout)
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
    reach = spans(graph, window)[source]
    if reach is None or any(np.isinf(span.extent) for span in reach):
        cause = "a layer's reach is not known" if reach is None else "a block inside pools over the whole image"
        raise InputError(f"model {name!r}: its last map is not local ({cause}); accepted for it: --way crops")
    return found, source


def _steps_to(graph: Graph, key: int) -> list[Step]:
    needed, kept = {key}, []
    for step in reversed(graph.steps):
        if needed & set(step.outputs):
            needed |= set(step.inputs)
            kept.append(step)
    return kept[::-1]


def _steps_from(graph: Graph, collapses: list[_Collapse]) -> list[Step]:
    known = {key for each in collapses for key in each.step.outputs}
    kept = []
    for step in graph.steps:
        if set(step.inputs) <= known:
            known |= set(step.outputs)
            kept.append(step)
    if graph.outputs[0] not in known:
        raise InputError(f"model {graph.model.name!r}: its head takes more than the last map; accepted: that alone")
    return kept


def _run(steps: list[Step], values: dict[int, Any]) -> dict[int, Any]:
    """The values of all tensors, from those of the first ones."""
    for step in steps:
        args, kwargs = step.refill(values)
        values |= dict(zip(step.outputs, keras.tree.flatten(step.layer(*args, **kwargs)), strict=True))
    return values


@dataclass(frozen=True)
class BoxScores:
    """What a model says about boxes: `boxes` (n, 4) in pixels (top, left, bottom, right), `scores` (n, classes)."""

    boxes: np.ndarray
    scores: np.ndarray
    class_names: tuple[str, ...]
    outputs: Outputs = "logits"

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax over the classes, or the scores where they are probabilities: (n, classes)."""
        return to_probabilities(self.scores, self.outputs)

    def save(self, path: str | Path) -> Path:
        """Write box, likeliest class and its probability as `score`, a box a row, to a .csv or .json file.

        Raises:
            InputError: for another ending.
        """
        path = check_boxes_file(path)
        probabilities = self.probabilities
        winners = probabilities.argmax(-1)
        rows = [
            (_plain(box), self.class_names[winner], round(float(chances[winner]), 6))
            for box, winner, chances in zip(self.boxes, winners, probabilities, strict=True)
        ]
        if path.suffix == ".json":
            content = [{"box": box, "class": name, "score": score} for box, name, score in rows]
            text = "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in content) + "\n]\n"
        else:
            file = io.StringIO()
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow((*_SIDES, "class", "score"))
            writer.writerows((*box, name, score) for box, name, score in rows)
            text = file.getvalue()
        with replacing(path) as temporary:
            temporary.write_text(text)
        return path


def score_boxes(
    model: keras.Model, image: np.ndarray | str | Path, boxes: Sequence, way: Way = "roi", progress: bool = False
) -> BoxScores:
    """Score boxes in an image, which share what they can.

    Args:
        model: a classifier with its head.
        image: (H, W) or (H, W, C) raw pixels, or a file.
        boxes: (n, 4) in pixels, (top, left, bottom, right), half-open; each overlaps the image.
        way: "roi": the body runs once, and each box's part of its map is pooled and given to the head; boxes of any
            size. "cells": the score map is scanned once, and each box has the scores of the cell whose window is
            centred nearest. "crops": the model itself runs on the window of its training size that is centred at each
            box, moved into the image where it would end beyond it.
        progress: show a bar, on a terminal.

    Raises:
        InputError: for another way, bad boxes or images, or a model that cannot be split (see `Regions`).
    """
    if way not in WAYS:
        raise InputError(unknown("way", way, WAYS))
    check_one_image(trace(model))
    check_one_output(model)
    with open_pixels(model, image) as source:
        boxes = check_boxes(boxes, source.shape[:2])
        if way == "cells":
            score_map = scan(model, source, progress=progress)
            last = np.array(score_map.scores.shape[:2]) - 1
            nearest = np.array([score_map.geometry.nearest_cell(*box) for box in boxes.tolist()])
            rows, columns = np.clip(nearest, 0, last).T
            scores = score_map.scores[rows, columns]
        else:
            scores = (_by_regions if way == "roi" else _by_crops)(model, source, boxes, progress)
    return BoxScores(boxes, scores, class_names(model), outputs_are(model))


def _by_regions(model: keras.Model, source: Pixels, boxes: np.ndarray, progress: bool) -> np.ndarray:
    regions = Regions(model)
    height, width = source.shape[:2]
    cells = regions.cells(boxes, (height, width))
    need, room = tile_memory(regions.body)(height, width), available()
    if need > room:
        raise InputError(
            f"image: the feature map of {height} x {width} pixels takes about {size_text(need)} to compute; "
            f"accepted for the way 'roi': what fits {size_text(room)}; 'cells' and 'crops' take images of any size"
        )
    maps = regions.feature_map(check_finite(source[:, :].astype(np.float32))[None])
    # Boxes of like size together: the largest of those pooled together decides what all of them take.
    order = np.argsort((cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1]), kind="stable")
    scores = np.empty((len(boxes), model.output_shape[-1]), np.float32)
    for part in _parts(order, lambda rest: regions.at_once(cells[rest]), progress):
        scores[part] = ops.convert_to_numpy(regions.scores(maps, cells[part][None]))
    return scores


def _by_crops(model: keras.Model, source: Pixels, boxes: np.ndarray, progress: bool) -> np.ndarray:
    window, size = _training_size(model), np.array(source.shape[:2])
    if (size < window).any():
        raise InputError(
            f"image: received {size[0]} x {size[1]} pixels; accepted: at least one window of {window[0]} x {window[1]}"
        )
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    corners = np.clip(np.floor(centres - np.array(window) / 2 + 0.5), 0, size - window).astype(int)
    scores = np.empty((len(boxes), model.output_shape[-1]), np.float32)
    for part in _parts(np.arange(len(boxes)), lambda _: CROPS_AT_ONCE, progress):
        crops = [source[top : top + window[0], left : left + window[1]] for top, left in corners[part]]
        pixels = check_finite(np.stack(crops).astype(np.float32))
        scores[part] = ops.convert_to_numpy(model(pixels, training=False))
    return scores


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


def _training_size(model: keras.Model) -> tuple[int, int]:
    size = card(model).image_size or tuple(model.inputs[0].shape[1:-1])
    if None in size:
        raise InputError(
            f"model {model.name!r}: its training size is not known; accepted: a model of fixed size, or one that was "
            "saved with it"
        )
    return size


def check_boxes(boxes: Any, image_size: tuple[int, int]) -> np.ndarray:
    """Boxes in pixels as an array (n, 4) of (top, left, bottom, right), each seen to overlap the image.

    Raises:
        InputError: naming the first box that does not, or that is no box; or where there are none.
    """
    try:
        array = np.asarray(boxes, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 2 or array.shape[1] != 4 or not len(array):
        raise InputError(f"boxes: received {_short(boxes)}; accepted: at least one box (top, left, bottom, right)")
    is_box = np.isfinite(array).all(1) & (array[:, 2] > array[:, 0]) & (array[:, 3] > array[:, 1])
    if not is_box.all():
        index = int((~is_box).argmax())
        raise InputError(
            f"box {index + 1}: received {_plain(array[index])}; accepted: top, left, bottom, right in pixels, top < "
            "bottom, left < right"
        )
    inside = (array[:, 2:] > 0).all(1) & (array[:, :2] < image_size).all(1)
    if not inside.all():
        index = int((~inside).argmax())
        raise InputError(
            f"box {index + 1}: received {_plain(array[index])}; accepted: boxes that overlap the image of "
            f"{image_size[0]} x {image_size[1]} pixels"
        )
    return array


def read_boxes(path: str | Path) -> np.ndarray:
    """Read boxes in pixels from a .csv or .json file: (n, 4) of (top, left, bottom, right).

    A CSV file has a header with the columns top, left, bottom, right, or ymin, xmin, ymax, xmax; others are left alone.
    A JSON file holds a list of boxes: four numbers each, or an object with these names or with `box`, four numbers.

    Raises:
        InputError: where the file cannot be read or has another form, naming the first box at fault.
    """
    path = check_boxes_file(path, "boxes")
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = json.loads(text) if path.suffix == ".json" else list(csv.DictReader(io.StringIO(text), strict=True))
    except OSError as error:
        raise InputError(f"boxes {str(path)!r}: cannot be read ({error.strerror})") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"boxes {str(path)!r}: broken ({' '.join(str(error).split())})") from None
    if not isinstance(rows, list) or not rows:
        raise InputError(f"boxes {str(path)!r}: has none; accepted: at least one")
    boxes = []
    for index, row in enumerate(rows, start=1):
        try:
            boxes.append([float(number) for number in _four(row)])
        except (TypeError, ValueError, KeyError):
            raise InputError(
                f"boxes {str(path)!r}: box {index}: received {_short(row)}; accepted: numbers named "
                f"{', '.join(_SIDES)} (or {', '.join(_OTHER_NAMES)})"
            ) from None
    return np.array(boxes)


def check_boxes_file(path: str | Path, what: str = "output") -> Path:
    """See that a path is that of a .csv or .json file, and return it.

    Raises:
        InputError: beginning with `what`, for another ending, or a folder.
    """
    path = Path(path)
    if path.suffix not in _ENDINGS:
        raise InputError(f"{what} {str(path)!r}: accepted: a name that ends in {' or '.join(_ENDINGS)}")
    return check_output(path, what)


def _four(row: Any) -> Sequence:
    if isinstance(row, dict):
        if "box" in row:
            return _four(row["box"])
        row = {str(name).strip().lower(): value for name, value in row.items()}
        return [row[name] for name in (_SIDES if _SIDES[0] in row else _OTHER_NAMES)]
    if not isinstance(row, list) or len(row) != 4 or any(isinstance(number, str) for number in row):
        raise ValueError
    return row


def _plain(box: np.ndarray) -> list[int | float]:
    """A box with whole numbers as such."""
    return [int(side) if float(side).is_integer() else float(side) for side in box]


def _short(received: Any) -> str:
    text = str(list(received.values()) if isinstance(received, dict) else received)
    return text if len(text) <= 60 else f"{text[:60]}..."
