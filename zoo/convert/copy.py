"""A Keras model anew, layer by layer along its graph: what conversions build on."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from zoo.errors import InputError
from zoo.network.graph import Step
from zoo.network.keras_internals import outputs_of
from zoo.network.layer_kinds import AUGMENTATIONS
from zoo.network.marks import is_mark
from zoo.network.network import Network

Values = Callable[[], list[np.ndarray]]


class Copy:
    """One walk along a network's graph, building a new model of layers of its own.

    `tensors` maps a source tensor's key to its new tensor. A kind of conversion overrides `step` and calls `clone` and
    `call`. Layers that are called several times stay one. At the end every weight of the source has found its place,
    and every weight of the new model has a value.
    """

    def __init__(self, network: Network, suffix: str = "", mark: str = "", **changes: object):
        """Prepare the walk.

        Args:
            network: the source.
            suffix: put after the model's name.
            mark: the name of a layer that hands the image on (see `zoo.network.marks`), in place of the source's own.
            changes: settings of every layer to replace.
        """
        self.network, self.graph, self.axes = network, network.graph, network.axes
        self.suffix, self.mark, self.changes = suffix, mark, changes
        self.tensors: dict[int, keras.KerasTensor] = {}
        self.copies: dict[tuple, layers.Layer] = {}
        self.values: list[tuple[layers.Layer, Values]] = []
        self.placed: set[int] = set()
        self.names: set[str] = set()

    @property
    def data_format(self) -> str:
        """Where the new model's maps have their channels, as Keras calls it."""
        return "channels_first" if self.axes.channels_first else "channels_last"

    def run(self, sides: tuple[int | None, ...] | None = None) -> keras.Model:
        """The new model, for images of `sides`; height and width are free where none are given."""
        source = self.graph.model.inputs[0]
        shape = self.axes.shape(sides or (None,) * self.axes.count, self.network.channels)
        image = keras.Input(shape, dtype=source.dtype, name=source.name)
        self.names.add(source.name)
        first = self.graph.inputs[0]
        self.tensors[first] = layers.Identity(dtype=source.dtype, name=self.mark)(image) if self.mark else image
        for index, step in enumerate(self.graph.steps):
            if self.mark and is_mark(step):
                self.tensors[step.outputs[0]] = self.tensors[step.inputs[0]]
            elif isinstance(step.layer, AUGMENTATIONS):
                self._leave_out(step)
            else:
                self.step(index, step)
        outputs: Any = [self.tensors[key] for key in self.graph.outputs]
        given, name = outputs_of(self.graph.model), f"{self.graph.model.name}{self.suffix}"
        if len(outputs) == 1:
            outputs = outputs[0]
        elif isinstance(given, dict) and len(given) == len(outputs):  # which Keras lists in the order of their keys
            outputs = dict(zip(sorted(given), outputs, strict=True))
        model = keras.Model(image, outputs, name=name)
        self._place_weights(model)
        return model

    def step(self, index: int, step: Step) -> None:
        """Build one step of the graph."""
        self.call(step, self.clone(step))

    def clone(self, step: Step, **changes: object) -> layers.Layer | keras.Operation:
        """The same layer with some of its settings changed; an operation of keras.ops without changes is itself."""
        layer = step.layer
        if not isinstance(layer, layers.Layer):
            return type(layer).from_config({**layer.get_config(), **changes}) if changes else layer
        changes = {**self.changes, **changes}
        key = (id(layer), *sorted((name, repr(value)) for name, value in changes.items()))
        if key not in self.copies:
            config = {**layer.get_config(), **changes, "name": self.name(step)}
            copy = self.copies[key] = made_of(step, type(layer), config)
            self.place(copy, lambda: _values(layer), layer)
        return self.copies[key]

    def call(
        self,
        step: Step,
        layer: layers.Layer | keras.Operation,
        inputs: dict[int, keras.KerasTensor] | None = None,
    ) -> None:
        """Call a layer as the step calls its own, on the new tensors, or on `inputs` in their place."""
        args, kwargs = step.refill(self.tensors | (inputs or {}))
        self.give(step, layer(*args, **kwargs))

    def give(self, step: Step, outputs: Any) -> None:
        """Say what a step's outputs are in the new model."""
        self.tensors |= dict(zip(step.outputs, keras.tree.flatten(outputs), strict=True))

    def place(self, copy: layers.Layer, values: Values, *sources: layers.Layer) -> None:
        """Say where the weights of a new layer come from: arrays of equal size, and the layers that they are of."""
        self.values.append((copy, values))
        self.placed.update(map(id, sources))

    def name(self, step: Step, suffix: str = "") -> str:
        """The layer's own name, or its whole path where two nested models use the same one."""
        own = f"{step.layer.name}{suffix}"
        name = own if own not in self.names else f"{step.path.replace('/', '_')}{suffix}"
        while name in self.names:
            name = f"{name}_again"
        self.names.add(name)
        return name

    def _leave_out(self, step: Step) -> None:
        """A layer that does nothing at inference but give the image another dtype."""
        image = self.tensors[step.inputs[0]]
        if image.dtype != step.made[0].dtype:
            image = layers.Rescaling(1.0, dtype=step.layer.dtype_policy, name=self.name(step))(image)
        self.tensors[step.outputs[0]] = image

    def _place_weights(self, model: keras.Model) -> None:
        """Copy every weight, a vector's in the shape that it has at every cell.

        Raises:
            RuntimeError: where a weight of the source has no place, or a new one no value.
        """
        for step in self.graph.steps:
            if getattr(step.layer, "weights", ()) and id(step.layer) not in self.placed:
                raise RuntimeError(f"layer {step.path!r}: its weights have no place in the converted model")
        for copy, values in self.values:
            pairs = zip(values(), copy.weights, strict=True)
            copy.set_weights([value.reshape(weight.shape) for value, weight in pairs])
            if isinstance(copy, layers.Normalization):
                copy.finalize_state()
        filled = {id(weight) for copy, _ in self.values for weight in copy.weights}
        empty = [weight.path for weight in model.weights if id(weight) not in filled]
        if empty:
            raise RuntimeError(f"converted model: {empty[0]} has no value from the source")


def made_of(step: Step, kind: type[layers.Layer], config: dict) -> layers.Layer:
    """A new layer of a kind, in the place of a step's layer.

    Raises:
        InputError: naming the layer, where its settings hold code of its author's own, which would not load elsewhere.
    """
    own = [name for name, value in config.items() if isinstance(value, dict) and value.get("registered_name")]
    if own:
        raise InputError(
            f"layer {step.path!r}: received {own[0]} {config[own[0]]['class_name']}; accepted: one of Keras"
        )
    return kind.from_config(config)


def in_float32(network: Network) -> Network:
    """The network itself where it computes in float32 or float64, else a copy of it in float32."""
    policies = [getattr(step.layer, "dtype_policy", None) for step in network.graph.steps]
    low = {"float16", "bfloat16"}
    if not any(policy and {policy.compute_dtype, policy.variable_dtype} & low for policy in policies):
        return network
    return in_dtype(network, "float32")


def in_dtype(network: Network, dtype: str) -> Network:
    """A copy that computes in another type of numbers."""
    return Network.of(Copy(network, dtype=dtype).run(network.graph.built_sides), network.training_size)


def _values(layer: layers.Layer) -> list[np.ndarray]:
    """The weights of a layer; of a Normalization those that it computes with, however it came by them."""
    values = layer.get_weights()
    if isinstance(layer, layers.Normalization) and values:
        mean, variance = (keras.ops.convert_to_numpy(value) for value in (layer.mean, layer.variance))
        return [mean, variance, values[2]]
    return values
