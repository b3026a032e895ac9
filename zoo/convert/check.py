"""The converter's checks of itself: source and conversion on random images, at the training size and beyond it."""

from itertools import product

import keras
import numpy as np

from zoo.convert.copy import in_float32
from zoo.errors import InputError
from zoo.network.graph import Graph, run_steps, shapes_at, trace
from zoo.network.outputs import scores_before, without_activations
from zoo.network.program import program_of, spans
from zoo.scores import relative_error


def random_images(model: keras.Model, graph: Graph, count: int, size: tuple[int, ...]) -> np.ndarray:
    """Raw images of noise in 0 to 255, as the model takes them, of the type that it takes or computes in."""
    channels = model.inputs[0].shape[graph.layout.channel]
    shape = (count, *graph.layout.shape(size, channels))
    dtype = model.inputs[0].dtype
    if keras.backend.is_float_dtype(dtype):
        dtype = "float64" if model.outputs[0].dtype == "float64" else "float32"
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def error_at_training_size(
    model: keras.Model, converted: keras.Model, size: tuple[int, ...], images: np.ndarray | None = None
) -> float:
    """The largest relative error of the single cell against the source's outputs, on `images` or two random ones.

    A softmax or sigmoid at the end is left out on both sides (see `scores_before`); both compute in float32 at least.

    Raises:
        InputError: where the source's scores are not finite, or `converted` gives something else than one cell for each
            of its outputs.
    """
    graph = trace(model)
    if images is None:
        images = random_images(model, graph, 2, size)
    outputs = scores_before(in_float32(model, graph), images)
    if not all(np.isfinite(scores).all() for scores in outputs):
        raise InputError(
            f"model {model.name!r}: its scores are not finite, computed in float32; accepted: a model whose training "
            "did not diverge"
        )
    cells = scores_before(in_float32(converted, trace(converted)), images)
    if [wanted.size for wanted in outputs] != [given.size for given in cells]:
        shapes = [", ".join(str(scores.shape[1:]) for scores in each) for each in (cells, outputs)]
        raise InputError(
            f"model {converted.name!r}: gives {shapes[0]} at {size}; accepted: a conversion of {model.name!r}, "
            f"one cell for {shapes[1]}"
        )
    pairs = zip(cells, outputs, strict=True)
    return max(relative_error(given.reshape(wanted.shape), wanted) for given, wanted in pairs)


def error_on_larger_maps(
    graph: Graph, converted: keras.Model, collapses: frozenset[int], size: tuple[int, ...], pooling: str
) -> float:
    """The largest relative error of the cells of a larger image against the source's head on windows of its maps.

    The source's own layers give the maps of the larger image, padded or not, and its own head what each window of
    them is worth; what a head mixes up between positions shows here, and not at the training size.
    """
    source = trace(in_float32(graph.model, graph))
    layout, applied = source.layout, without_activations(source)
    trained = shapes_at(source, size)
    strides = _strides(source, collapses, size)
    program = program_of(source, size)
    more = [side + step * extra for side, step, extra in zip(size, strides, (1, 2), strict=False)]
    larger = tuple(program.fitting(axis, side, strides[axis]) for axis, side in enumerate(more))
    image = random_images(graph.model, graph, 1, larger)
    cells = scores_before(in_float32(converted, trace(converted)), image)
    errors = []
    for output, scores in zip(source.outputs, cells, strict=True):
        own = {source.steps[index].inputs[0] for index in collapses if output in _behind(source, index)}
        start = {source.inputs[0]: keras.ops.convert_to_tensor(image)}
        values = run_steps(source, start, own, applied)
        if pooling == "global" or not own:  # one answer for the image, or a map without a head
            values |= start
            wanted = keras.ops.convert_to_numpy(run_steps(source, values, [output], applied)[output])
            errors.append(relative_error(scores.reshape(wanted.shape), wanted))
            continue
        wanted = np.empty_like(layout.last(scores))
        for cell in product(*map(range, wanted.shape[1:-1])):
            windows = {}
            for key in own:
                sides = layout.sides((None, *trained[key]))
                parts = (slice(first, first + side) for first, side in zip(cell, sides, strict=True))
                windows[key] = values[key][layout.at(*parts)]
            answer = run_steps(source, windows, [output], applied)[output]
            wanted[(0, *cell)] = keras.ops.convert_to_numpy(answer).reshape(-1)
        errors.append(relative_error(layout.last(scores), wanted))
    return max(errors)


def _behind(graph: Graph, index: int) -> set[int]:
    """The keys of the tensors that depend on a step."""
    found = set(graph.steps[index].outputs)
    for step in graph.steps[index + 1 :]:
        if found & set(step.inputs):
            found |= set(step.outputs)
    return found


def _strides(graph: Graph, collapses: frozenset[int], size: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of the maps that the head is on, the largest of each axis."""
    known = spans(graph, size)
    maps = [known[graph.steps[index].inputs[0]] for index in collapses]
    return tuple(max(span.stride for span in along) for along in zip(*maps, strict=True))
