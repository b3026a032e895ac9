"""Dense heads to Conv2D heads: the same function at the training size, on images of any size.

A Dense layer on a flattened H x W x C map is an H x W convolution without padding; a Dense layer after it, or after
pooling, is a 1x1 convolution; a global pooling is a pooling of the training map's size at stride 1.
"""

from typing import Literal

import keras
import numpy as np
from keras import layers

from zoo.dense.compare import relative_error
from zoo.dense.head import head_collapses, refuse_unknown_reach
from zoo.dense.outputs import scores_before
from zoo.dense.positions import GLOBAL_POOLINGS, is_pointwise
from zoo.errors import InputError
from zoo.graph import Graph, Step, check_one_image, check_size, shapes_at, trace
from zoo.saving import Card, attach, card

Pooling = Literal["window", "global"]
# The largest relative difference that the self-check lets pass, in float32: rounding alone stays far below it.
_TOLERANCE = 1e-4


def convolutionalize(
    model: keras.Model, image_size: tuple[int, int] | None = None, pooling: Pooling = "window"
) -> keras.Model:
    """Turn a classifier's Dense head into convolutions: (B, h, w, C) -> (B, rows, cols, classes), h and w free.

    The result is a new model of built-in Keras layers with equal weights; `model` is not changed. At the training
    size it gives one cell, with the source's outputs; the conversion is checked for that on random images.

    Args:
        model: a Functional or Sequential classifier with one image input. A fully-convolutional model comes back as
            it is, or anew with height and width free where its input fixes them.
        image_size: (height, width) that the model was trained at, needed where its input leaves them open.
        pooling: "window" pools over windows of the training size, so that every cell answers for one such window;
            "global" pools over the whole image, whatever its size, to one cell.

    Raises:
        InputError: naming the layer, where the head cannot be slid; where the training size is not known, or a layer
            does not take it; or for a model that was converted with pooling="global" before.
    """
    if pooling not in ("window", "global"):
        raise InputError(f"pooling: received {pooling!r}; accepted: 'window', 'global'")
    graph = trace(model)
    check_one_image(graph)
    if card(model).pooling == "global":
        raise InputError(
            f"model {model.name!r}: was converted with pooling='global', so it gives one answer for an image of any "
            "size and no map; `zoo predict` takes it, accepted here: its source"
        )
    collapses = head_collapses(graph)
    refuse_unknown_reach(graph, collapses)
    if not collapses and None in model.inputs[0].shape[1:-1]:
        return model
    size = _training_size(model, image_size)
    converted = _Conversion(graph, collapses, size, pooling).run()
    about = card(model).model_dump()
    if collapses:
        about |= {"image_size": size, "pooling": pooling, "window": size if pooling == "window" else None}
    attach(converted, Card.model_validate(about))
    error = error_at_training_size(model, converted, size)
    if not error <= _TOLERANCE:
        raise RuntimeError(
            f"conversion of {model.name!r} failed its check: relative error {error:.1e} at {size}; this is a fault of "
            "the converter, please report the model's layers"
        )
    return converted


def error_at_training_size(
    model: keras.Model, converted: keras.Model, size: tuple[int, int], images: np.ndarray | None = None
) -> float:
    """The largest relative error of the single cell against the source's outputs, on `images` or two random ones.

    A softmax or sigmoid at the end is left out on both sides (see `scores_before`).

    Raises:
        InputError: where `converted` gives something else than one cell for each of the source's outputs.
    """
    if images is None:
        channels = model.inputs[0].shape[-1]
        images = np.random.default_rng(0).integers(0, 256, (2, *size, channels)).astype(np.float32)
    errors = []
    outputs, cells = scores_before(model, images), scores_before(converted, images)
    if [wanted.size for wanted in outputs] != [given.size for given in cells]:
        shapes = [", ".join(str(scores.shape[1:]) for scores in each) for each in (cells, outputs)]
        raise InputError(
            f"model {converted.name!r}: gives {shapes[0]} at {size}; accepted: a conversion of {model.name!r}, "
            f"one cell for {shapes[1]}"
        )
    for wanted, given in zip(outputs, cells, strict=True):
        errors.append(relative_error(given.reshape(wanted.shape), wanted))
    return max(errors)


def _training_size(model: keras.Model, image_size: tuple[int, int] | None) -> tuple[int, int]:
    built = tuple(model.inputs[0].shape[1:-1])
    given = None if image_size is None else check_size(image_size, len(built))
    if None not in built:
        if given is not None and given != built:
            raise InputError(f"image_size: received {given}; accepted for this model: {built}, or none")
        return built
    known = given or card(model).image_size
    if known is None:
        raise InputError(
            f"model {model.name!r}: its input leaves height and width open; give the training size as "
            "image_size=(height, width)"
        )
    return known


class _Conversion:
    """One walk along the graph, building the new one beside it.

    `tensors` maps a source tensor's key to its new tensor. A former vector is either `cells` (at every grid cell), or,
    right after Flatten, a `flat` map whose training shape (h, w, c) the next Dense layer takes as its kernel.
    """

    def __init__(self, graph: Graph, collapses: frozenset[int], size: tuple[int, int], pooling: Pooling):
        self.graph, self.collapses, self.size, self.pooling = graph, collapses, size, pooling
        self.tensors: dict[int, keras.KerasTensor] = {}
        self.map_shapes = shapes_at(graph, size)
        self.cells: set[int] = set()
        self.flat: dict[int, tuple[int, int, int]] = {}
        self.made: dict[tuple, layers.Layer] = {}
        self.placed: dict[int, list[layers.Layer]] = {}
        self.names: set[str] = set()

    def run(self) -> keras.Model:
        source = self.graph.model.inputs[0]
        image = keras.Input((None, None, source.shape[-1]), dtype=source.dtype, name=source.name)
        self.names.add(source.name)
        self.tensors[self.graph.inputs[0]] = image
        for index, step in enumerate(self.graph.steps):
            if index in self.collapses:
                self._collapse(step)
            elif any(key in self.cells or key in self.flat for key in step.inputs):
                self._head(step)
            else:
                self._call(step, self._clone(step))
        flat = [key for key in self.graph.outputs if key in self.flat]
        if flat:
            raise InputError(f"model {self.graph.model.name!r}: an output is a flattened map, not a vector of classes")
        outputs = [self.tensors[key] for key in self.graph.outputs]
        model = keras.Model(image, outputs[0] if len(outputs) == 1 else outputs, name=f"{self.graph.model.name}_fcn")
        self._place_weights()
        return model

    def _collapse(self, step: Step) -> None:
        """Pooling or flattening of the map."""
        (source,), (result,) = step.inputs, step.outputs
        rows, columns, channels = self.map_shapes[source]
        if not isinstance(step.layer, GLOBAL_POOLINGS):
            self.tensors[result] = self.tensors[source]
            if (rows, columns) == (1, 1):
                self.cells.add(result)
            elif self.pooling == "global":
                raise InputError(f"layer {step.path!r}: flattens the map; accepted for pooling='global': a pooled head")
            else:
                self.flat[result] = (rows, columns, channels)
            return
        is_average = isinstance(step.layer, layers.GlobalAveragePooling2D)
        common = {"name": self._name(step), "dtype": step.layer.dtype_policy}
        if self.pooling == "global":
            layer = layers.GlobalAveragePooling2D if is_average else layers.GlobalMaxPooling2D
            made = layer(keepdims=True, **common)
        else:
            layer = layers.AveragePooling2D if is_average else layers.MaxPooling2D
            made = layer((rows, columns), strides=1, padding="valid", **common)
        self.tensors[result] = made(self.tensors[source])
        self.cells.add(result)

    def _head(self, step: Step) -> None:
        """A layer on former vectors."""
        layer = step.layer
        flat = next((self.flat[key] for key in step.inputs if key in self.flat), None)
        if isinstance(layer, layers.Dense):
            made = self._dense(step, flat)
        elif isinstance(layer, layers.Reshape | layers.Flatten):
            if flat or layer.output.shape[-1] != self.tensors[step.inputs[0]].shape[-1]:
                raise InputError(f"layer {step.path!r}: reshapes the vector; accepted: between (C,) and (1, 1, C)")
            self.tensors[step.outputs[0]] = self.tensors[step.inputs[0]]
            self.cells.update(step.outputs)
            return
        elif isinstance(layer, layers.BatchNormalization) and not flat:
            made = self._clone(step, axis=-1)
        elif isinstance(layer, layers.PReLU) and not flat:
            made = self._clone(step, shared_axes=[1, 2])
        elif isinstance(layer, layers.Conv2D) and set(layer.kernel_size) == {1} and not flat:
            made = self._clone(step)
        elif is_pointwise(layer) and (not flat or _is_elementwise(layer)):
            made = self._clone(step, axis=-1) if isinstance(layer, layers.Concatenate) else self._clone(step)
        else:
            where = "on the flattened map" if flat else "in the head"
            raise InputError(f"layer {step.path!r} ({type(layer).__name__}): cannot be slid over an image {where}")
        self._call(step, made)
        if flat and not isinstance(layer, layers.Dense):
            self.flat |= dict.fromkeys(step.outputs, flat)
        else:
            self.cells.update(step.outputs)

    def _dense(self, step: Step, flat: tuple[int, int, int] | None) -> layers.Layer:
        """The convolution that a Dense layer is: `flat` rows and columns for the first after Flatten, else 1x1."""
        layer = step.layer
        key = (id(layer), flat)
        if key not in self.made:
            config = layer.get_config()
            shared = ("units", "lora_rank", "lora_alpha", "quantization_config", "name")
            config = {name: value for name, value in config.items() if name not in shared}
            self.made[key] = layers.Conv2D(
                filters=layer.units,
                kernel_size=flat[:2] if flat else 1,
                padding="valid",
                name=self._name(step),
                **config,
            )
            self.placed.setdefault(id(layer), []).append(self.made[key])
        return self.made[key]

    def _clone(self, step: Step, **changes: object) -> layers.Layer | keras.Operation:
        """The same layer anew; one that is called several times stays one."""
        layer = step.layer
        if not isinstance(layer, layers.Layer):
            return layer
        if isinstance(layer, layers.Lambda):
            raise InputError(f"layer {step.path!r}: a Lambda runs code of its own and is not converted")
        key = (id(layer), *sorted(changes))
        if key not in self.made:
            config = {**layer.get_config(), **changes, "name": self._name(step)}
            self.made[key] = type(layer).from_config(config)
            self.placed.setdefault(id(layer), []).append(self.made[key])
        return self.made[key]

    def _call(self, step: Step, layer: layers.Layer | keras.Operation) -> None:
        args, kwargs = step.refill(self.tensors)
        outputs = keras.tree.flatten(layer(*args, **kwargs))
        self.tensors |= dict(zip(step.outputs, outputs, strict=True))

    def _name(self, step: Step) -> str:
        """The layer's own name, or its whole path where two nested models use the same one."""
        name = step.layer.name if step.layer.name not in self.names else step.path.replace("/", "_")
        while name in self.names:
            name = f"{name}_again"
        self.names.add(name)
        return name

    def _place_weights(self) -> None:
        """Copy every weight of every layer, a vector's in the shape that they have at every cell."""
        for step in self.graph.steps:
            layer = step.layer
            if not getattr(layer, "weights", ()):
                continue
            for made in self.placed.pop(id(layer), []):
                pairs = zip(layer.get_weights(), made.weights, strict=True)
                made.set_weights([value.reshape(weight.shape) for value, weight in pairs])


def _is_elementwise(layer: keras.Operation) -> bool:
    """Whether a layer acts on each number by itself, so that it may stand between Flatten and Dense."""
    if isinstance(layer, layers.Activation):
        return layer.activation not in (keras.activations.softmax, keras.activations.log_softmax)
    return isinstance(layer, layers.Dropout | layers.ReLU | layers.LeakyReLU | layers.ELU | layers.Identity)
