"""Where a classifier's feature map ends and its head begins."""

from keras import layers

from zoo.dense.positions import GLOBAL_POOLINGS, moves, refuse_channels_first
from zoo.graph import Graph, Step

_COLLAPSES = (*GLOBAL_POOLINGS, layers.Flatten, layers.Reshape)


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
        if is_map and _collapses(step):
            found.add(index)
            is_map, origin = False, frozenset({index})
        elif is_map:
            inside |= origin
            origin = frozenset()
        for key in step.outputs:
            spatial[key], origins[key] = is_map, origin
    return frozenset(found - inside)


def refuse_unknown_reach(graph: Graph, collapses: frozenset[int]) -> None:
    """See that every layer on a map is one whose reach over positions is known.

    Raises:
        InputError: naming the layer (attention, Permute, recurrent, Lambda, channels first) that could not be slid.
    """
    axes = len(graph.model.inputs[0].shape) - 2
    vectors: set[int] = set()
    for index, step in enumerate(graph.steps):
        if set(step.inputs) <= vectors:
            vectors.update(step.outputs)
        elif index in collapses or isinstance(step.layer, GLOBAL_POOLINGS):
            refuse_channels_first(step)
            vectors.update(step.outputs)
        else:
            moves(step, axes)


def _collapses(step: Step) -> bool:
    return isinstance(step.layer, _COLLAPSES) and (
        isinstance(step.layer, GLOBAL_POOLINGS) or len(step.output_shape) == 2
    )
