"""Numbers that a step takes beside its tensors: x * 2, x - mean."""

from typing import Any

import keras
import numpy as np
from keras import layers

from zoo.errors import InputError
from zoo.network.graph import Axes, Step
from zoo.network.layer_kinds import MERGING_OPERATIONS, is_elementwise, operation_in


def check_constants(step: Step, axes: Axes) -> None:
    """Check that numbers that a step adds, multiplies with or the like are the same at every position.

    Raises:
        InputError: naming the layer, where they are a map of one size.
    """
    rank = len(step.output_shape)
    numbers = axes.channel if rank == axes.rank else rank - 1
    for shape in constants(step):
        sides = (*(1,) * (rank - len(shape)), *shape)
        if len(sides) != rank or any(side != 1 for axis, side in enumerate(sides) if axis != numbers):
            raise InputError(
                f"layer {step.path!r}: takes a constant of shape {shape}, of its own at every position; accepted: one "
                "for all positions"
            )


def works_on_each_number(step: Step) -> bool:
    """Whether a step does the same to each number by itself, wherever it stands: also x * 2, x + 1."""
    alone = operation_in(step.layer, MERGING_OPERATIONS) and len(step.inputs) == 1
    return is_elementwise(step.layer) or (alone and all(set(shape) <= {1} for shape in constants(step)))


def constants(step: Step) -> list[tuple[int, ...]]:
    """The shapes of the arrays that a step takes beside its tensors; plain numbers are none."""
    if isinstance(step.layer, layers.Rescaling):
        given: list[Any] = [step.layer.scale, step.layer.offset]
    else:
        args, kwargs = step.arguments
        given = [
            each
            for each in (*args, *kwargs.values())
            if not isinstance(each, str | None)
            and operation_in(step.layer, MERGING_OPERATIONS)
            and not any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(each))
        ]
    shapes = (tuple(each.shape) if hasattr(each, "shape") else np.shape(each) for each in given)
    return [shape for shape in shapes if shape]
