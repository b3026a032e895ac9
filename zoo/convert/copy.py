"""A Keras model anew, layer by layer beside its graph: what conversions build on."""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers

from zoo.errors import InputError
from zoo.network.graph import AUGMENTATIONS, Graph, Step

Values = Callable[[], list[np.ndarray]]


class Rebuild:
    """One walk along a graph, building a new model of layers of its own.

    `tensors` maps a source tensor's key to its new tensor. A kind of conversion overrides `step` and calls `clone` and
    `call`. Layers that are called several times stay one. At the end every weight of the source has found its place,
    and every weight of the new model has a value.
    """

    def __init__(self, graph: Graph, suffix: str = "", **changes: object):
        """`suffix` is put behind the model's name; `changes` replace settings of every layer."""
        self.graph, self.layout, self.suffix, self.changes = graph, graph.layout, suffix, changes
        self.tensors: dict[int, keras.KerasTensor] = {}
        self.made: dict[tuple, layers.Layer] = {}
        self.values: list[tuple[layers.Layer, Values]] = []
        self.placed: set[int] = set()
        self.names: set[str] = set()
        self.data_format = "channels_first" if graph.layout.channels_first else "channels_last"

    def run(self, sides: tuple[int | None, ...] | None = None) -> keras.Model:
        """The new model, for images of `sides`; height and width are free where none are given."""
        source = self.graph.model.inputs[0]
        shape = self.layout.shape(sides or (None,) * self.layout.axes, source.shape[self.layout.channel])
        image = keras.Input(shape, dtype=source.dtype, name=source.name)
        self.names.add(source.name)
        self.tensors[self.graph.inputs[0]] = image
        for index, step in enumerate(self.graph.steps):
            if isinstance(step.layer, AUGMENTATIONS):
                self._leave_out(step)
            else:
                self.step(index, step)
        outputs = [self.tensors[key] for key in self.graph.outputs]
        name = f"{self.graph.model.name}{self.suffix}"
        model = keras.Model(image, outputs[0] if len(outputs) == 1 else outputs, name=name)
        self._place_weights(model)
        return model

    def step(self, index: int, step: Step) -> None:
        """Build one step of the graph."""
        self.call(step, self.clone(step))

    def clone(self, step: Step, **changes: object) -> layers.Layer | keras.Operation:
        """The same layer anew, with some of its settings changed; operations of keras.ops are used as they are."""
        layer = step.layer
        if not isinstance(layer, layers.Layer):
            return layer
        changes = {**self.changes, **changes}
        key = (id(layer), *sorted((name, repr(value)) for name, value in changes.items()))
        if key not in self.made:
            config = {**layer.get_config(), **changes, "name": self.name(step)}
            made = self.made[key] = made_of(step, type(layer), config)
            self.place(made, lambda: _values(layer), layer)
        return self.made[key]

    def call(
        self,
        step: Step,
        layer: layers.Layer | keras.Operation,
        inputs: dict[int, keras.KerasTensor] | None = None,
    ) -> None:
        """Call a layer as the step calls its own, on the new tensors, or on `inputs` in their place."""
        args, kwargs = step.refill(self.tensors | (inputs or {}))
        outputs = keras.tree.flatten(layer(*args, **kwargs))
        self.tensors |= dict(zip(step.outputs, outputs, strict=True))

    def place(self, made: layers.Layer, values: Values, *sources: layers.Layer) -> None:
        """Say where the weights of a new layer come from: arrays of equal size, and the layers that they are of."""
        self.values.append((made, values))
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
        if image.dtype != step.node.outputs[0].dtype:
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
        for made, values in self.values:
            pairs = zip(values(), made.weights, strict=True)
            made.set_weights([value.reshape(weight.shape) for value, weight in pairs])
            if isinstance(made, layers.Normalization):
                made.finalize_state()
        filled = {id(weight) for made, _ in self.values for weight in made.weights}
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


def _values(layer: layers.Layer) -> list[np.ndarray]:
    """The weights of a layer; of a Normalization those that it computes with, which is told when they change."""
    values = layer.get_weights()
    if isinstance(layer, layers.Normalization) and values:
        mean, variance = (keras.ops.convert_to_numpy(value) for value in (layer.mean, layer.variance))
        return [mean, variance, values[2]]
    return values


def in_float32(model: keras.Model, graph: Graph) -> keras.Model:
    """The model itself where it computes in float32 or float64, else a copy of it in float32."""
    policies = [getattr(step.layer, "dtype_policy", None) for step in graph.steps]
    low = ("float16", "bfloat16")
    if not any(policy and {policy.compute_dtype, policy.variable_dtype} & set(low) for policy in policies):
        return model
    return Rebuild(graph, dtype="float32").run(graph.layout.sides(model.inputs[0].shape))
