"""Where a classifier's feature map ends and its head begins."""

from dataclasses import dataclass

from zoo.errors import InputError
from zoo.network.constants import works_on_each_number
from zoo.network.graph import Axes, Graph, Shape, Step
from zoo.network.layer_kinds import AUGMENTATIONS, axes_of, is_affine, moves_numbers, operation_in, rearranges
from zoo.network.rules import (
    Kind,
    global_pooling,
    moves_of,
    refuse_own_code,
    takes_one_position,
)


@dataclass(frozen=True)
class Head:
    """The steps, by their indices, at which maps become vectors, and what every tensor is, by its key.

    `collapses`: those whose vectors the outputs are computed from. `blocks`: global poolings inside the network, whose
    vectors are merged with a map again (squeeze-and-excitation).
    """

    collapses: frozenset[int]
    blocks: frozenset[int]
    kinds: dict[int, Kind]
    origins: dict[int, frozenset[int]]

    @classmethod
    def of(cls, graph: Graph) -> "Head":
        """Find the head of a graph."""
        kinds: dict[int, Kind] = dict.fromkeys(graph.inputs, "map")
        origins: dict[int, frozenset[int]] = dict.fromkeys(graph.inputs, frozenset())
        collapses: set[int] = set()
        blocks: set[int] = set()
        for index, step in enumerate(graph.steps):
            origin = frozenset().union(*(origins[key] for key in step.inputs if kinds[key] == "vector"))
            if all(kinds[key] == "vector" for key in step.inputs):
                kind: Kind = "vector"
            elif _collapses(graph, step, kinds[step.inputs[0]]):
                collapses.add(index)
                kind, origin = "vector", frozenset({index})
            else:
                blocks |= origin
                kind = "plane" if len(step.output_shape) == graph.axes.rank - 1 else "map"
                origin = frozenset()
            for key in step.outputs:
                kinds[key], origins[key] = kind, origin
        return cls(frozenset(collapses - blocks), frozenset(blocks), kinds, origins)


def refuse_unknown_reach(graph: Graph, head: Head) -> None:
    """Check that every layer is Keras's own or registered, and every layer on a map one whose reach is known.

    Raises:
        InputError: naming the layer (attention, recurrent, Lambda) that could not be slid; one that is called with
            training=True, whose answers are random or depend on the batch; or one whose vector, of the whole image,
            serves a block inside the network and the head at once, which a cell's window and the image would both be.
    """
    for index, step in enumerate(graph.steps):
        refuse_own_code(step)
        on_vectors = all(head.kinds[key] == "vector" for key in step.inputs)
        if on_vectors:
            _refuse_shared_pooling(graph, head, step)
        elif index not in head.collapses and not global_pooling(step, graph.axes):
            moves_of(step, head.kinds, graph.axes)
        if step.training and not isinstance(step.layer, AUGMENTATIONS):
            raise InputError(f"layer {step.path!r}: is called with training=True; accepted: the model for inference")
    for key in graph.outputs:
        for index in head.origins[key] & head.blocks:
            raise _serves_both(graph.steps[index])


def refuse_broadcasts(graph: Graph, head: Head, shapes: dict[int, Shape]) -> None:
    """Check that maps that are merged have one size, for one position repeated is so at the training size alone.

    `shapes`: those of every tensor there, without the batch. A vector is one position at any size.

    Raises:
        InputError: naming the layer; or the one that spreads a vector over the positions of one size.
    """
    makers = {key: step for step in graph.steps for key in step.outputs}
    for step in graph.steps:
        maps = [key for key in step.inputs if head.kinds[key] != "vector"]
        sides = {_sides(graph.axes, shapes[key]) for key in maps}
        if len(sides) > 1:
            received = " and ".join(" x ".join(map(str, each)) for each in sorted(sides))
            raise InputError(f"layer {step.path!r}: merges maps of {received} positions; accepted: one size")
        for key in step.inputs if maps else ():
            spread = head.kinds[key] == "vector" and len(shapes[key]) == graph.axes.rank - 1
            if spread and any(side != 1 for side in _sides(graph.axes, shapes[key])):
                size = " x ".join(map(str, _sides(graph.axes, shapes[key])))
                raise InputError(
                    f"layer {makers[key].path!r}: spreads a vector of the whole map over {size} positions, those of "
                    "one image size; accepted: one position, which a merge repeats at any size"
                )


def _sides(axes: Axes, shape: Shape) -> Shape:
    """The sides of a map or plane, of its shape without the batch."""
    return axes.sides((None, *shape)) if len(shape) == axes.rank - 1 else tuple(shape)


def _refuse_shared_pooling(graph: Graph, head: Head, step: Step) -> None:
    origins = frozenset().union(*(head.origins[key] for key in step.inputs))
    if origins & head.collapses and origins & head.blocks:
        raise _serves_both(graph.steps[min(origins & head.blocks)])


def _serves_both(step: Step) -> InputError:
    return InputError(
        f"layer {step.path!r}: its vector serves a block inside the network, which looks at the whole image, and the "
        "head, whose cells look at a window each; accepted: a pooling of its own for each"
    )


def _collapses(graph: Graph, step: Step, kind: Kind) -> bool:
    """Whether a step on a map or plane makes a vector, or begins to turn it into one."""
    axes, rank = graph.axes, len(step.output_shape)
    if global_pooling(step, axes) or takes_one_position(step, axes):
        return True
    drops_channels = rank == axes.rank - 1 and (
        operation_in(step.layer, {"GetItem"})
        or (operation_in(step.layer, {"Squeeze"}) and axes_of(step.layer, axes.rank) == (axes.channel,))
    )
    if drops_channels:  # a plane, which is no vector of a sequence's either, unless it is flattened
        return kind == "map" and _leads_to_vector(graph, step)
    return rearranges(step.layer) and (rank == 2 or (kind == "map" and _leads_to_vector(graph, step)))


def _leads_to_vector(graph: Graph, step: Step) -> bool:
    """Whether all that reads a rearranged map goes on to make a vector of it, and looks at each number by itself."""
    readers = [graph.steps[index] for index in graph.readers.get(step.outputs[0], ())]
    return bool(readers) and all(
        (moves_numbers(reader.layer) and len(reader.output_shape) == 2)
        or (
            (moves_numbers(reader.layer) or works_on_each_number(reader) or is_affine(reader.layer))
            and _leads_to_vector(graph, reader)
        )
        for reader in readers
    )
