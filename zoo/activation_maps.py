"""Class activation maps: what each position of the last feature map adds to a classifier's logits, exactly.

Lin et al. 2013 (arXiv:1312.4400, section 3.2) average one map a class, Zhou et al. 2016 (arXiv:1512.04150, section 2)
weight the averages of all maps. Both are one thing: an average and what is linear may change places, so the mean of the
head without its pooling, over all positions, is the logits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import keras
import numpy as np
from keras import layers, ops

from zoo.engines.engine import check_scores
from zoo.errors import InputError, refuse
from zoo.files import replacing
from zoo.made_by import MadeBy
from zoo.network.graph import Step, needed_steps, run_steps
from zoo.network.layer_kinds import GLOBAL_POOLINGS, does_nothing, is_affine, moves_numbers, operation_in
from zoo.network.network import Network
from zoo.network.outputs import as_taken, without_activations
from zoo.network.positions import Pair, pair
from zoo.network.rules import global_pooling
from zoo.scanning.model_scale import read_at_model_scale
from zoo.scanning.pixels import open_pixels
from zoo.settings import own_settings

_ACCEPTED = "accepted for class activation maps: one global average pooling, and linear layers alone after it"
_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D)
_SUMS = (layers.Add, layers.Average, layers.Concatenate, layers.Subtract)


@dataclass(frozen=True)
class ClassActivation:
    """What each cell of the last feature map adds to the logits of one image.

    `maps`: (rows, cols, classes), whose mean over the cells is `logits`, (classes,), those before a softmax or sigmoid
    at the model's end. The last layer's bias, which Zhou et al. leave out, is in every cell. Each cell has a block of
    the image's pixels, `stride` in size, side by side from `corner` on, (top, left); it is about the middle of what the
    cell sees, so that blocks may end within the image or beyond it. `by_field`: whether it is; else, where what a cell
    sees is not known or the whole image, the blocks divide the image evenly.
    """

    maps: np.ndarray
    logits: np.ndarray
    class_names: tuple[str, ...]
    corner: tuple[float, float]
    stride: tuple[float, float]
    by_field: bool

    @property
    def box(self) -> tuple[float, float, float, float]:
        """What the blocks of all cells cover, (top, left, bottom, right) in pixels of the image."""
        sides = zip(self.corner, self.stride, self.maps.shape, strict=False)
        return (*self.corner, *pair(begin + stride * count for begin, stride, count in sides))

    def save(self, path: str | Path, made_by: MadeBy | None = None) -> Path:
        """Write an .npz file: maps, logits, class_names, corner and stride."""
        with replacing(path, made_by) as temporary, temporary.open("wb") as file:
            names, corner, stride = (np.array(each) for each in (self.class_names, self.corner, self.stride))
            np.savez_compressed(
                file, maps=self.maps, logits=self.logits, class_names=names, corner=corner, stride=stride
            )
        return Path(path)


class UnpooledHead:
    """A classifier's head without its global average pooling, as a function of one image."""

    def __init__(self, network: Network):
        """Check that the maps' means are the logits.

        Raises:
            InputError: naming the layer that stands in the way; for a model that takes or gives several things.
        """
        network.check_one_image()
        network.check_one_output()
        self.network, self._graph = network, network.graph
        self._applied = without_activations(network.graph)
        self._map = _pooled_map(network)
        after = needed_steps(self._graph.steps, [self._map], self._graph.outputs)
        for index, (step, applied) in enumerate(zip(self._graph.steps, self._applied, strict=True)):
            if index in after and index not in network.head.collapses:
                _check_linear(network, step, applied)
            elif applied is not step.layer:
                _refuse(step, "makes probabilities before the pooling, so that the answer is no logit")

    def __call__(self, pixels: np.ndarray) -> ClassActivation:
        """The maps of raw pixels (h, w, C) at the model's own scale.

        Raises:
            InputError: where the model does not take an image of that size, or its scores are not finite.
        """
        network, graph = self.network, self._graph
        size = pair(pixels.shape[:2])
        if network.built_size not in (None, size):
            other = "or images of any size, by convolutionalize(model, pooling='global')"
            refuse("image", f"{size[0]} x {size[1]} pixels", "{} x {}, {}".format(*network.built_size, other))
        network.shapes(size)
        (output,) = graph.outputs
        image = as_taken(graph, network.axes.own(pixels[None]))
        run = partial(run_steps, graph, applied=self._applied)
        values = run({graph.inputs[0]: image}, [self._map, output])
        positions = network.axes.last(ops.convert_to_numpy(values[self._map]))[0]
        # Each position as a map of one, of which the pooling makes the position itself.
        alone = network.axes.own(positions.reshape(-1, 1, 1, positions.shape[-1]))
        scores = run({self._map: ops.convert_to_tensor(alone)}, [output])[output]
        logits = check_scores(ops.convert_to_numpy(values[output]).reshape(-1), "image", network)
        maps = ops.convert_to_numpy(scores).reshape(*positions.shape[:2], -1)
        return ClassActivation(maps, logits, network.class_names, *self._blocks(size, pair(positions.shape[:2])))

    def _blocks(self, size: Pair, cells: Pair) -> tuple[tuple[float, float], tuple[float, float], bool]:
        """Where the cells' blocks begin, how large they are, and whether they lie where the cells look."""
        spans = self.network.spans(size)[self._map]
        if spans is None or any(np.isinf(span.extent) for span in spans):
            return (0.0, 0.0), pair(side / count for side, count in zip(size, cells, strict=True)), False
        corner = pair(span.start + (span.extent - span.stride) / 2 for span in spans)
        return corner, pair(float(span.stride) for span in spans), True


@own_settings()
def class_activation(model: keras.Model, image: np.ndarray | str | Path) -> ClassActivation:
    """The class activation maps of an image: what each cell of the last feature map adds to each logit.

    For classifiers that end in a global average pooling with nothing but linear layers after it, and a softmax or
    sigmoid at the very end; what comes before the pooling may be anything. A model that was converted with
    pooling="global" takes images of any size.

    Args:
        model: a classifier, of one size of image or any.
        image: an array (H, W) or (H, W, C) of raw pixels, at the model's own size and scale; or a file, which is
            brought to its scale.

    Raises:
        InputError: naming the layer for which the maps' means would not be the logits; where the image does not suit
            the model, or the scores are not finite.
    """
    head = UnpooledHead(Network.of(model))
    if isinstance(image, str | Path):
        return head(read_at_model_scale(head.network, image)[0])
    with open_pixels(head.network, image) as pixels:
        return head(pixels[:, :])


def _pooled_map(network: Network) -> int:
    """The key of the map that the head averages."""
    collapses = [network.graph.steps[index] for index in sorted(network.head.collapses)]
    if not collapses:
        raise InputError(
            f"model {network.name!r}: gives a score map, whose cells are means of class activation maps over windows; "
            "accepted: its classifier, or the same converted with pooling='global'"
        )
    for step in collapses:
        pooling = global_pooling(step, network.axes)
        if pooling is None:
            _refuse(step, "keeps the positions apart, each with weights of its own")
        if pooling != "average":
            _refuse(step, "pools the maximum, which one position makes alone")
        if step is not collapses[0]:
            _refuse(step, f"is a second pooling beside {collapses[0].path!r}")
    return collapses[0].inputs[0]


def _check_linear(network: Network, step: Step, applied: keras.Operation | Callable | None) -> None:
    """Check that a step of the head, with what is called in its layer's place, may change places with an average."""
    if any(network.head.kinds[key] != "vector" for key in step.inputs):
        _refuse(step, "leads to the head beside the pooled map")
    if step.training:
        _refuse(step, "is called with training=True")
    if applied is not None and not _is_linear(step, applied):
        _refuse(step, f"({type(step.layer).__name__}) is not linear")


def _is_linear(step: Step, layer: keras.Operation | Callable) -> bool:
    """Whether a layer's output on a mean of vectors is the mean of its outputs on them."""
    if isinstance(layer, (layers.Dense, layers.Activation, *_CONVOLUTIONS)):
        # What is quantized rounds its input, too.
        return layer.activation is keras.activations.linear and getattr(layer, "quantization_mode", None) is None
    if operation_in(layer, {"Multiply", "TrueDivide"}):  # by a constant, and not a constant by the vector
        return len(step.inputs) == 1 and isinstance(step.arguments[0][0], keras.KerasTensor)
    is_sum = isinstance(layer, _SUMS) or operation_in(layer, {"Add", "Negative", "Subtract"})
    same = does_nothing(layer) or moves_numbers(layer) or GLOBAL_POOLINGS.get(type(layer)) == "average"
    return is_sum or same or is_affine(layer)


def _refuse(step: Step, why: str) -> NoReturn:
    raise InputError(f"layer {step.path!r}: {why}; {_ACCEPTED}")
