"""The one oracle of conversions: two models on the same images, compared before a softmax or sigmoid at their ends."""

import math
from itertools import product

import keras
import numpy as np

from zoo.convert.copy import in_dtype, in_float32
from zoo.errors import ADVICE, Diverged, InputError, cause, refuse
from zoo.network.graph import known_shape, run_steps
from zoo.network.network import Network
from zoo.network.outputs import as_taken, scores_before, without_activations
from zoo.network.program import Ints
from zoo.scores import relative_error

# The largest relative difference that counts as the same function in float32: rounding alone stays far below it.
EXACT = 1e-5
# The same for a model that computes in 16 bits, of which single numbers keep 8: it is compared with itself alone.
_EXACT_16_BITS = 2**-6


def random_images(network: Network, count: int, size: Ints) -> np.ndarray:
    """Raw images of noise, whole numbers in 0 to 255, of the type that the model takes or computes in."""
    shape = known_shape(network.axes.shape(size, network.channels))
    return np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(_image_dtype(network))


def _image_dtype(network: Network) -> np.dtype:
    dtype = network.model.inputs[0].dtype
    return network.dtype if keras.backend.is_float_dtype(dtype) else np.dtype(dtype)


def check_graph(network: Network, size: Ints) -> None:
    """Check that a model computes what the graph of its layers says.

    On images of whole numbers, and of fractions: up to 255, and small ones, which no softmax or sigmoid at the end
    turns to 0 and 1.

    Raises:
        InputError: where it does not: a model or layer does more, or other things, than its graph tells.
    """
    images = random_images(network, 4, size)
    if np.issubdtype(images.dtype, np.floating):
        fractions = np.random.default_rng(1).uniform(0, 1, images[1:].shape)
        scales = np.reshape([255, 1, 1 / 256], (3, *(1,) * (images.ndim - 1)))
        images[1:] = fractions * scales
    taken = as_taken(network.graph, images)
    try:
        answers = keras.tree.flatten(network.model(taken, training=False))
    except Exception as failure:  # Keras and its backends raise whatever their layers come upon
        received = f"one that does not run on an image of {size} itself ({cause(failure)})"
        refuse(f"model {network.name!r}", received, "one that does")
    own = [keras.ops.convert_to_numpy(each) for each in answers]
    values = run_steps(network.graph, {network.graph.inputs[0]: taken}, network.graph.outputs)
    traced = [keras.ops.convert_to_numpy(values[key]) for key in network.graph.outputs]
    if not all(np.isfinite(each).all() for each in own):
        return  # which the other checks report, computed in float32
    error = max(relative_error(given, expected) for given, expected in zip(own, traced, strict=True))
    low = network.compute_dtypes & {"float16", "bfloat16"}
    if not error <= (_EXACT_16_BITS if low else EXACT):
        _refuse_rounding(network, size)
        raise InputError(
            f"model {network.name!r}: computes something else than the graph of its layers (relative error "
            f"{error:.1e} on random images); accepted: a model that is what its graph says"
        )


def check_sizes(network: Network, size: Ints) -> None:
    """Check that every layer gives maps of the sides that its move says.

    Raises:
        InputError: naming the first that does not, for which a wrong rule was registered.
    """
    shapes, axes, kinds = network.shapes(size), network.axes, network.head.kinds
    sizes = [network.program.sizes(axis, side) for axis, side in enumerate(size)]
    for each in network.program.instructions:
        if kinds[each.output] == "map":
            made, said = axes.sides((None, *shapes[each.output])), tuple(along[each.output] for along in sizes)
            if made != said:
                refuse(f"layer {each.path!r}", f"maps of {made} at {size}", f"{said}, as its rule says")


def error_at_training_size(source: Network, converted: Network, size: Ints) -> float:
    """The largest relative error of the single cell against the source's outputs, on two random images.

    Raises:
        Diverged: where the source's scores are not finite.
        InputError: where `converted` gives something else than one cell for each of its outputs.
    """
    images = random_images(source, 2, size)
    outputs = _channels_last(source, scores_before(in_float32(source).graph, images))
    if not all(np.isfinite(scores).all() for scores in outputs):
        raise _diverged(source, "its scores are not finite at the training size, computed in float32")
    cells = _channels_last(converted, scores_before(in_float32(converted).graph, _for(converted, source, images)))
    if [expected.size for expected in outputs] != [given.size for given in cells]:
        shapes = [", ".join(str(scores.shape[1:]) for scores in each) for each in (cells, outputs)]
        refuse(
            f"model {converted.name!r}",
            f"{shapes[0]} at {size}",
            f"a conversion of {source.name!r}, one cell for {shapes[1]}",
        )
    pairs = zip(cells, outputs, strict=True)
    return max(relative_error(given.reshape(expected.shape), expected) for given, expected in pairs)


def error_on_larger_maps(source: Network, converted: Network, pooling: str) -> float:
    """The largest relative error of the cells of a larger image against the source's head on windows of its maps.

    The source's own layers give the maps of the larger image, padded or not, and its own head what each window of
    them is worth; what a head mixes up between positions shows here, and not at the training size. Both have their
    channels last.
    """
    source, converted = in_float32(source), in_float32(converted)
    graph, size = source.graph, source.training_size or ()
    applied, trained = without_activations(graph), source.shapes(size)
    collapses = source.head.collapses
    strides = _strides(source)
    more = [side + stride * extra for side, stride, extra in zip(size, strides, (1, 2), strict=False)]
    larger = tuple(source.program.fitting(axis, side, strides[axis]) for axis, side in enumerate(more))
    image = random_images(source, 1, larger)
    cells = scores_before(converted.graph, image)
    errors = []
    for output, scores in zip(graph.outputs, cells, strict=True):
        maps = {graph.steps[index].inputs[0] for index in collapses if output in graph.dependent_on(index)}
        start = {graph.inputs[0]: as_taken(graph, image)}
        values = run_steps(graph, start, maps, applied)
        if pooling == "global" or not maps:  # one answer for the image, or a map without a head
            values |= start
            answer = run_steps(graph, values, [output], applied)[output]
            expected = keras.ops.convert_to_numpy(answer).reshape(scores.shape)
            errors.append(relative_error(scores, expected))
            continue
        expected = np.empty_like(scores)
        for cell in product(*map(range, expected.shape[1:-1])):
            windows = {}
            for key in maps:
                sides = known_shape(trained[key])[:-1]
                parts = (slice(first, first + side) for first, side in zip(cell, sides, strict=True))
                windows[key] = values[key][source.axes.at(*parts)]
            answer = run_steps(graph, windows, [output], applied)[output]
            expected[(0, *cell)] = keras.ops.convert_to_numpy(answer).reshape(-1)
        errors.append(relative_error(scores, expected))
    return max(errors)


def demand_equality(source: Network, error: float, where: str) -> None:
    """Check that an error of a conversion is rounding.

    Raises:
        Diverged: where the source's own scores are beyond all bounds, or rounding alone.
        RuntimeError: where it is larger, and the source's scores are sound.
    """
    if not math.isfinite(error):
        raise _diverged(source, f"its scores are not finite at {where}, computed in float32")
    if not error <= EXACT:
        if source.training_size is not None:
            _refuse_rounding(source, source.training_size)
        raise RuntimeError(
            f"conversion of {source.name!r} failed its check: relative error {error:.1e} at {where}; this is a "
            "fault of the converter, please report the model's layers"
        )


def _refuse_rounding(network: Network, size: Ints) -> None:
    """Check that a model's scores in float32 are those in float64, so that a comparison of them means something.

    Raises:
        Diverged: where they are not: numbers beyond all bounds cancel each other in the model.
    """
    plain, exact = in_float32(network), in_dtype(network, "float64")
    images = random_images(plain, 2, size)
    pairs = zip(scores_before(plain.graph, images), scores_before(exact.graph, images), strict=True)
    error, largest = 0.0, 0.0
    for given, expected in pairs:
        error, largest = max(error, relative_error(given, expected)), max(largest, float(np.abs(expected).max()))
    if not error <= EXACT:
        what = f"its scores in float32, up to {largest:.1e}, differ from those in float64 by {error:.1e} of that"
        raise _diverged(network, what)


def _diverged(source: Network, what: str) -> Diverged:
    return Diverged(f"model {source.name!r}: {what}, so its training diverged; {ADVICE}")


def _for(network: Network, other: Network, images: np.ndarray) -> np.ndarray:
    """Images of another network's as this one takes them."""
    return network.axes.own(other.axes.last(images))


def _channels_last(network: Network, outputs: list[np.ndarray]) -> list[np.ndarray]:
    """Outputs of a network, those that are maps with their channels last."""
    return [network.axes.last(each) if each.ndim == network.axes.rank else each for each in outputs]


def _strides(source: Network) -> Ints:
    """The strides of the maps that the head is on, the largest of each axis."""
    spans = source.spans(source.training_size)
    maps = [spans[source.graph.steps[index].inputs[0]] for index in source.head.collapses]
    return tuple(max(span.stride for span in along) for along in zip(*maps, strict=True))
