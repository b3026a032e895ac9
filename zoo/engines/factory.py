"""Engines made for a network, by their names."""

from functools import partial

from zoo.engines.engine import ENGINES, Engine, EngineName, Precision, RuntimeName
from zoo.engines.fragments import Fragments
from zoo.engines.keras_engine import run_keras
from zoo.engines.openvino_engine import run_openvino
from zoo.errors import InputError, quoted, refuse, unknown
from zoo.network.network import Network


def make_engine(
    network: Network, name: EngineName | RuntimeName = "keras", precision: Precision | None = None
) -> Engine:
    """An engine for a network, which may be a classifier.

    The weights are read once, here: an engine does not see a later training.

    Args:
        network: one image in, one output.
        name: "keras" runs on Keras's backend; "openvino" needs the extra of that name.
        precision: what OpenVINO computes in, "float32" (the default) or, on a processor that has it, "bfloat16", which
            keeps 8 bits of every number. Keras computes in what the model's layers say.

    Raises:
        InputError: for an unknown name or precision, a missing package, or a precision that the processor, the engine
            or the model does not have.
    """
    if name not in ENGINES:
        raise InputError(unknown("engine", name, ENGINES))
    network.check_one_image()
    network.check_one_output()
    if name == "openvino":
        precision = precision or "float32"
        return Engine(network, name, run_openvino(network.graph, precision), precision)
    if precision is not None:
        refuse("precision", f"{quoted(precision)} with the engine 'keras'", "none, it is the model's own")
    return Engine(network, name, run_keras(network.graph), fragments=partial(Fragments, network))
