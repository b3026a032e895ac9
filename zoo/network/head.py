"""Where a classifier's feature map ends and its head begins."""

from keras import layers

from zoo.errors import InputError
from zoo.network.graph import AUGMENTATIONS, Graph, Step
from zoo.network.positions import global_pooling, moves, refuse_own_code


def head_collapses(graph: Graph) -> frozenset[int]:
    """Indices of the steps at which a map becomes the vector that the outputs are computed from.

    A global pooling whose result is merged with a map again (squeeze-and-excitation) is inside the network: not one.
    """
    spatial: dict[int, bool] = dict.fromkeys(graph.inputs, True)
    origins: dict[int, frozenset[int]] = dict.fromkeys(graph.inputs, frozenset())
    found: set[int] = set()
    inside: set[int] = set()
    for index, step in enumerate(graph.steps):
        is_map = any(spatial[key] for key in step.inputs)
        origin = frozenset().union(*(origins[key] for key in step.inputs if not spatial[key]))
        if is_map and _collapses(step, graph):
            found.add(index)
            is_map, origin = False, frozenset({index})
        elif is_map:
            inside |= origin
            origin = frozenset()
        for key in step.outputs:
            spatial[key], origins[key] = is_map, origin
    return frozenset(found - inside)


def refuse_unknown_reach(graph: Graph, collapses: frozenset[int]) -> None:
    """See that every layer is Keras's own, and every layer on a map one whose reach over positions is known.

    Raises:
        InputError: naming the layer (attention, Permute, recurrent, Lambda) that could not be slid; or one that is
            called with training=True, whose answers are random or depend on the batch.
    """
    vectors: set[int] = set()
    for index, step in enumerate(graph.steps):
        refuse_own_code(step)
        if set(step.inputs) <= vectors:
            vectors.update(step.outputs)
        elif index in collapses or global_pooling(step, graph.layout):
            vectors.update(step.outputs)
        else:
            moves(step, graph.layout)
        if step.training and not isinstance(step.layer, AUGMENTATIONS):
            raise InputError(f"layer {step.path!r}: is called with training=True; accepted: the model for inference")


def refuse_broadcasts(graph: Graph, sizes: dict[int, tuple[int | None, ...]]) -> None:
    """See that maps that are merged have one size, for one position repeated is so at the training size alone.

    `sizes`: the shape of every tensor there, without the batch. What a global pooling made is one position at any size.

    Raises:
        InputError: naming the layer.
    """
    pooled: set[int] = set()
    for step in graph.steps:
        if set(step.inputs) <= pooled or global_pooling(step, graph.layout):
            pooled.update(step.outputs)
        found = {graph.layout.sides((None, *sizes[key])) for key in step.inputs if key not in pooled}
        if len(found) > 1:
            received = " and ".join(" x ".join(map(str, sides)) for sides in sorted(found))
            raise InputError(f"layer {step.path!r}: merges maps of {received} positions; accepted: one size")


def _collapses(step: Step, graph: Graph) -> bool:
    flattens = isinstance(step.layer, layers.Flatten | layers.Reshape) and len(step.output_shape) == 2
    return flattens or global_pooling(step, graph.layout) is not None
