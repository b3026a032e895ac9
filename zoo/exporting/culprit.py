"""Which layer it is that a format, or its runtime, does not have: found by halving the network until it shows."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import keras

from zoo.convert.copy import Copy
from zoo.errors import Differs, InputError, refuse, shortened
from zoo.exported.carried import Carried
from zoo.exported.format import CannotHold, Format
from zoo.exported.image_bytes import SIGNATURE
from zoo.exporting.verification import run_alone, trial_batches
from zoo.network.network import Network


def refuse_culprit(kind: Format, network: Network, carried: Carried, error: CannotHold) -> NoReturn:
    """Refuse a network that a format cannot hold, by the first layer with which it cannot.

    Raises:
        InputError: naming the layer; or none, where the runtime runs no model at all.
        Differs: where the network is run on images, and only the signature for files of them fails.
    """
    cause, steps = shortened(" ".join(str(error).split()), 200), network.graph.steps

    def works(count: int) -> bool:
        with tempfile.TemporaryDirectory(prefix="zoo-export-") as folder:
            path = Path(folder) / f"part{kind.ending}"
            try:
                kind.write(_beginning(network, count), path, carried)
                run_alone(kind, path, carried.precision, trial_batches(network, carried.image.dtype))
            except CannotHold:
                return False
            return True

    if not works(0):
        raise InputError(f"export format {kind.name!r}: {kind.runtime} runs no model here ({cause})") from None
    if kind.files(carried) is not None and works(len(steps)):
        received = f"{kind.runtime} runs the model on images, and fails on files of them, by {SIGNATURE} ({cause})"
        raise Differs(f"export format {kind.name!r}: {received}") from None
    step = steps[_first_failing(works, len(steps)) - 1]
    received = f"{type(step.layer).__name__}, which {kind.name} cannot hold here ({cause})"
    refuse(f"layer {step.path!r}", received, "another layer, or another format")


def _first_failing(works: Callable[[int], bool], count: int) -> int:
    """The least number for which something does not work that works for 0, and does not for `count`."""
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if works(middle) else (low, middle)
    return high


def _beginning(network: Network, count: int) -> keras.Model:
    """A model of the first steps alone, whose outputs are all that none of them reads."""
    graph, steps = network.graph, network.graph.steps[:count]
    if not steps:
        image = keras.Input(network.model.inputs[0].shape[1:])
        return keras.Model(image, {"made_0": keras.layers.Rescaling(0.5)(image)})
    read = {key for step in steps for key in step.inputs}
    keys = tuple(key for step in steps for key in step.outputs if key not in read)
    model = Copy(Network(network.model, replace(graph, outputs=keys, steps=steps))).run(graph.built_sides)
    return keras.Model(model.inputs[0], {f"made_{number}": each for number, each in enumerate(model.outputs)})
