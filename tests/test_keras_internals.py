"""The canary: what is read of Keras beyond its public interface is there, and means what it is taken to mean."""

import re
from pathlib import Path

import keras
from keras import layers

from zoo.network import keras_internals

PACKAGE = Path(__file__).resolve().parents[1] / "zoo"


def test_a_functional_models_nodes_are_its_calls_in_order():
    image = keras.Input((4, 4, 3), name="image")
    conv = layers.Conv2D(2, 1, name="conv")
    model = keras.Model(image, layers.Add(name="add")([conv(image), conv(image)]))
    nodes = list(keras_internals.nodes_in_order(keras_internals.graph_holder(model)))
    assert [node.operation.name for node in nodes] == ["conv", "conv", "add"]
    assert [tensor.shape for tensor in nodes[2].input_tensors] == [(None, 4, 4, 2)] * 2
    args, kwargs = keras_internals.filled(nodes[2], ["a", "b"])
    assert args == (["a", "b"],) and not kwargs
    assert keras_internals.arguments(nodes[0])[0] == (image,)


def test_sequential_models_hold_a_functional_one_once_they_are_built():
    chain = keras.Sequential([layers.Dense(2)])
    assert keras_internals.graph_holder(chain) is None
    chain.build((None, 3))
    assert keras_internals.graph_holder(chain) is not None

    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    assert keras_internals.graph_holder(Subclassed()) is None


def test_a_cast_leaves_the_graph_of_its_tensor_as_it_is():
    image = keras.Input((3,))
    node = keras_internals.cast_node(image, "uint8")
    assert node.outputs[0].dtype == "uint8" and type(node.operation).__name__ == "Cast"
    assert node.input_tensors[0] is not image


def test_inputs_given_as_a_dict_are_known():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    assert keras_internals.takes_dict(keras.Model({"a": a, "b": b}, layers.Add()([a, b])))
    assert not keras_internals.takes_dict(keras.Model([a, b], layers.Add()([a, b])))


def test_own_code_is_told_from_keras():
    assert keras_internals.is_from_keras(layers.Dense) and keras_internals.is_from_keras(keras.activations.relu)
    assert not keras_internals.is_from_keras(test_own_code_is_told_from_keras)
    kinds = {type(layer) for layer in keras.applications.ConvNeXtTiny(weights=None).layers}
    assert sum(map(keras_internals.is_scale_of_applications, kinds)) == 1


def test_nothing_else_reads_what_keras_keeps_to_itself():
    names = "nodes_by_depth|functional|inbound_nodes|outbound_nodes|keras_history|inputs_struct"
    private = re.compile(rf"\._({names})\b|keras\.src")
    for path in PACKAGE.rglob("*.py"):
        if path.name != "keras_internals.py":
            assert not private.search(path.read_text(encoding="utf-8")), path
