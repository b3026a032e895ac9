"""A classifier in two parts: one pass of the network's body, then RoI pooling and the head for each box.

Girshick 2015, "Fast R-CNN", section 2.1: the part of the feature map that a box covers is pooled to the size of map
that the Dense head was trained on, whatever the box's own size. A head that pools itself, over the whole map or over a
spatial pyramid (He et al. 2014, section 2.2), pools over the box's part directly.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import layers, ops

from zoo.engines.roi import Reduction, roi_pool
from zoo.errors import InputError, refuse
from zoo.network.graph import Step, known_shape, needed_steps, run_steps
from zoo.network.network import Network
from zoo.network.positions import Pair, Span, pair
from zoo.network.rules import global_pooling

_ADAPTIVE = (layers.AdaptiveAveragePooling2D, layers.AdaptiveMaxPooling2D)
# Numbers that are gathered at once, for all bins of the boxes that are pooled together: 128 MiB in float32.
_AT_ONCE = 2**25


@dataclass(frozen=True)
class _Collapse:
    """A step of the head that makes a vector of the map, the bins that it is given, and how they are pooled."""

    step: Step
    size: Pair
    pool: Reduction


class Regions:
    """A classifier in two parts: a body, run once over an image, and a head, run on every box."""

    def __init__(self, network: Network):
        """Split a network where its last feature map becomes a vector.

        Raises:
            InputError: where there is no such place or the map before it is not of finite reach, the training size is
                not known, or the model takes or gives several things.
        """
        network.check_one_image()
        network.check_one_output()
        self.network, self.graph = network, network.graph
        self.window = training_size(network)
        self._collapses, self.map = _split(self.network, self.window)
        self._trained = _local_spans(network, self.window, self.map)
        *self.map_size, self._channels = known_shape(network.shapes(self.window)[self.map])

    def feature_map(self, images: Any) -> Any:
        """The body's map of images of any size: (B, H, W, C) -> (B, rows, cols, channels)."""
        given = {self.graph.inputs[0]: ops.convert_to_tensor(images, dtype=self.network.model.inputs[0].dtype)}
        return run_steps(self.graph, given, [self.map])[self.map]

    def cells(self, boxes: np.ndarray, image_size: Pair) -> np.ndarray:
        """The regions of the feature map that boxes cover: pixels (n, 4) -> cells (n, 4), whole numbers.

        A box of the training size W covers as many cells as the training map has, h, and the first lies at its top
        left: in strides s, rows go from round(top / s) to h + round((bottom - W) / s), halves up. Of a padded map,
        W = h s, that is round(bottom / s), Caffe's rule; without padding, those are the cells that see nothing beyond
        the box, to the nearest stride. A box that would have none has the cell centred nearest to it. What lies beyond
        the map is cut off.

        Raises:
            InputError: where the image is too small for the body's layers.
        """
        here = _local_spans(self.network, image_size, self.map)
        if min(span.known_size for span in here) < 1:
            refuse(
                "image",
                f"{image_size[0]} x {image_size[1]} pixels, of which the layers leave no map",
                f"a larger one, the model was trained at {self.window[0]} x {self.window[1]}",
            )
        cells = np.empty(np.shape(boxes), np.int32)
        for axis, (span, trained) in enumerate(zip(here, self._trained, strict=True)):
            start, end = (np.asarray(boxes, np.float64)[:, axis + corner] for corner in (0, 2))
            offset = span.start - trained.start
            first = (start - offset) / span.stride
            last = (end - offset - self.window[axis]) / span.stride + self.map_size[axis]
            centre = np.floor((first + last) / 2)
            first, last = np.floor(first + 0.5), np.floor(last + 0.5)
            none = last <= first
            first = np.clip(np.where(none, centre, first), 0, span.known_size - 1)
            cells[:, axis] = first
            cells[:, axis + 2] = np.clip(np.where(none, centre + 1, last), first + 1, span.size)
        return cells

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

    def answers(self, maps: Any, regions: np.ndarray) -> np.ndarray:
        """`scores` as a NumPy array."""
        return ops.convert_to_numpy(self.scores(maps, regions))

    @property
    def padding(self) -> tuple[str, ...]:
        """The paths of the body's layers that pad."""
        return self.network.up_to(self.map).program.padding

    def at_once(self, regions: np.ndarray) -> int:
        """How many of these regions can be pooled together in bounded memory."""
        rows, columns = (regions[:, 2:] - regions[:, :2]).max(0)
        gathered = max((rows + 2 * each.size[0]) * (columns + 2 * each.size[1]) for each in self._collapses)
        return max(_AT_ONCE // int(gathered * self._channels), 1)


def _split(network: Network, window: Pair) -> tuple[list[_Collapse], int]:
    """Where the map becomes a vector, and the key of that map."""
    graph = network.graph
    steps = [graph.steps[index] for index in sorted(network.head.collapses)]
    makers = {key: step for step in graph.steps for key in step.outputs}
    shapes = network.shapes(window)
    collapses, sources = [], set()
    for step in steps:
        (source,) = step.inputs
        size, pool, before = pair(known_shape(shapes[source][:2])), global_pooling(step, graph.axes), makers.get(source)
        if pool is not None:
            size = (1, 1)
        elif before is not None and isinstance(before.layer, _ADAPTIVE):
            (source,) = before.inputs
            pool = "average" if isinstance(before.layer, layers.AdaptiveAveragePooling2D) else "max"
        collapses.append(_Collapse(step, size, pool or "max"))
        sources.add(source)
    name = graph.model.name
    if len(sources) > 1:
        raise InputError(f"model {name!r}: its head begins at {len(sources)} maps; accepted: a head on the last one")
    (source,) = sources
    _local_spans(network, window, source)
    given = {key for each in collapses for key in each.step.outputs}
    head = needed_steps(graph.steps, given, graph.outputs)
    if any(graph.inputs[0] in graph.steps[index].inputs for index in head):
        raise InputError(f"model {name!r}: its head takes more than the last map; accepted: that alone")
    return collapses, source


def _local_spans(network: Network, size: Pair, key: int) -> tuple[Span, Span]:
    """What the cells of a map look at along each axis of an image of `size`.

    Raises:
        InputError: where that is not known, or the whole image.
    """
    reach = network.spans(size)[key]
    if reach is None or any(np.isinf(span.extent) for span in reach):
        cause = "a layer's reach is not known" if reach is None else "a block inside pools over the whole image"
        raise InputError(f"model {network.name!r}: its last map is not local ({cause}); accepted for it: --way crops")
    return pair(reach)


def training_size(network: Network) -> Pair:
    """The training size of a classifier.

    Raises:
        InputError: where it is not known, or the network is none but gives a map.
    """
    if not network.head.collapses:
        raise InputError(f"model {network.name!r}: gives a map; accepted: a classifier with its head, not converted")
    size = network.card.image_size or network.built_size
    if size is None:
        raise InputError(
            f"model {network.name!r}: its training size is not known; accepted: a model of fixed size, or one that was "
            "saved with it"
        )
    return pair(size)
