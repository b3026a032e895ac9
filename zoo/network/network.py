"""A model as everything else sees it: graph, moves, head, training size, outputs and card, found out once."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import keras
import numpy as np
from keras import layers

from zoo.card import Card, attach, card
from zoo.errors import InputError, listing, quoted, refuse, unknown
from zoo.network.geometry import Geometry
from zoo.network.graph import Axes, Graph, Shape, needed_steps, shapes_at, trace
from zoo.network.head import Head
from zoo.network.keras_internals import output_names
from zoo.network.marks import marked
from zoo.network.moves import Everywhere, Move, Pointwise, Slide, Unknown
from zoo.network.outputs import kinds_of_outputs
from zoo.network.positions import Span
from zoo.network.program import Instruction, Ints, Program
from zoo.network.rules import Kind, global_pooling, moves_of
from zoo.network.scannable import Scannable, check_size
from zoo.scores import Outputs


class Network(Scannable):
    """A Functional or Sequential model, traced once; made by `Network.of` and handed on.

    `model`: the model itself, which is not changed. `graph`: its steps. Later training changes the weights that its
    layers hold, and nothing here; what `attach` gives the model later is its card here too.
    """

    def __init__(self, model: keras.Model, graph: Graph, image_size: Ints | None = None):
        """Use `Network.of`."""
        self.model, self.graph, self._given_size = model, graph, image_size

    @classmethod
    def of(cls, model: "keras.Model | Network", image_size: Sequence[int] | None = None) -> "Network":
        """Trace a model; what is a network already is handed on.

        Args:
            model: a Functional or Sequential model.
            image_size: the (height, width), or (length,), that it was trained at, where its input leaves it open.

        Raises:
            InputError: where its graph is not what it computes (see `zoo.network.graph.trace`), or the size is not one
                that it can have been trained at.
        """
        if isinstance(model, Network) and image_size is None:
            return model
        model, graph = (model.model, model.graph) if isinstance(model, Network) else (model, trace(model))
        if image_size is None:
            return cls(model, graph)
        size, built = check_size(image_size, graph.axes.count), graph.built_sides
        if None not in built and size != built:
            refuse("image_size", f"{size}", f"{built}, or none, for this model")
        if any(side not in (None, own) for side, own in zip(built, size, strict=True)):
            refuse("image_size", f"{size}", f"{built}, with a number for each None")
        return cls(model, graph, size)

    def up_to(self, key: int) -> "Network":
        """The part of it that makes one tensor, given by its key."""
        steps = tuple(self.graph.steps[index] for index in needed_steps(self.graph.steps, (), [key]))
        return Network(self.model, replace(self.graph, outputs=(key,), steps=steps), self._given_size)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def axes(self) -> Axes:
        """Where its maps have their axes."""
        return self.graph.axes

    @property
    def card(self) -> Card:
        """What travels with the model: as it was attached, or as far as marks in its graph tell where that was lost."""
        attached = card(self.model)
        return attached if attached != Card() else self._marked

    @cached_property
    def _marked(self) -> Card:
        return marked(self.graph) or Card()

    @cached_property
    def head(self) -> Head:
        """Where its feature map ends and its head begins."""
        return Head.of(self.graph)

    @property
    def has_head(self) -> bool:
        """Whether its maps become vectors, so that it gives one answer for one size of image."""
        return bool(self.head.collapses) and self.card.pooling != "global"

    @property
    def channels(self) -> int:
        """The channels of its images."""
        return int(self.model.inputs[0].shape[self.axes.channel])

    @property
    def built_size(self) -> Ints | None:
        """The sides that its input has, None where it leaves one open."""
        sides = tuple(side for side in self.graph.built_sides if side is not None)
        return sides if len(sides) == self.axes.count else None

    @property
    def training_size(self) -> Ints | None:
        """The sides that it was trained at, None where they are not known."""
        return self._given_size or self.built_size or self.card.image_size

    @property
    def own_size(self) -> Ints | None:
        """The sides at which its graph gives one answer: of a padding-free twin its window, else the training size."""
        return self.window if self.card.padding == "valid" else self.training_size

    @property
    def window(self) -> Ints | None:
        """The sides of the crop that a cell stands for, None where that is its receptive field, or the whole image."""
        return self.card.window or (self.training_size if self.has_head else None)

    @property
    def outputs_are(self) -> tuple[Outputs, ...]:
        """What each output is: "probabilities" after a softmax, "sigmoid" after a sigmoid, else "logits".

        The outputs of a model whose card has the target "count" are "counts".
        """
        if self.card.target == "count":
            return tuple("counts" for _ in self.graph.outputs)
        return self._kinds_of_outputs

    @cached_property
    def _kinds_of_outputs(self) -> tuple[Outputs, ...]:
        return kinds_of_outputs(self.graph)

    @property
    def dtype(self) -> np.dtype:
        """The type of pixels and scores: float64 for a model that answers in it, else float32."""
        is_double = keras.backend.standardize_dtype(self.model.outputs[0].dtype) == "float64"
        return np.dtype(np.float64 if is_double else np.float32)

    @property
    def compute_dtypes(self) -> set[str]:
        """The names of the types that its layers compute in."""
        return {step.layer.compute_dtype for step in self.graph.steps if isinstance(step.layer, layers.Layer)}

    @cached_property
    def numbers_a_position(self) -> dict[int, int]:
        """How many numbers every tensor has at each of its positions, by its key."""
        kinds = self.head.kinds
        return {key: _numbers_a_position(tensor, self.axes, kinds[key]) for key, tensor in self._tensors.items()}

    @cached_property
    def bytes_a_position(self) -> dict[int, int]:
        """The bytes that every tensor takes for each of its positions, by its key."""
        return {key: self.numbers_a_position[key] * _bytes(tensor) for key, tensor in self._tensors.items()}

    @property
    def _tensors(self) -> dict[int, keras.KerasTensor]:
        tensors = dict(zip(self.graph.inputs, self.model.inputs, strict=True))
        for step in self.graph.steps:
            tensors |= dict(zip(step.outputs, step.made, strict=True))
        return tensors

    def key(self) -> str:
        """What the model computes, now, as text: a hash of its layers, their settings and weights, not their names."""
        digest = hashlib.blake2b(digest_size=8)
        for step in self.graph.steps:
            config = step.layer.get_config() if isinstance(step.layer, keras.Layer) else {}
            settings = {key: value for key, value in config.items() if key != "name"}
            digest.update(json.dumps([type(step.layer).__name__, settings], default=str, sort_keys=True).encode())
            for weight in getattr(step.layer, "weights", ()):
                digest.update(np.asarray(weight).tobytes())
        return digest.hexdigest()

    def units(self, output: int = 0) -> int:
        """How many numbers an output gives at a cell, or for an image.

        Raises:
            InputError: where the output is a map without an axis of channels.
        """
        self.check_channels(output)
        shape = self.model.outputs[output].shape
        return int(shape[self.axes.channel if len(shape) == self.axes.rank else -1])

    def check_channels(self, output: int) -> None:
        """Check that an output is no map without an axis of channels.

        Raises:
            InputError: where it is one.
        """
        shape = self.model.outputs[output].shape
        if self.head.kinds[self.graph.outputs[output]] == "plane":
            refuse(
                f"model {self.name!r}",
                f"an output {quoted(self.output_names[output])} without an axis of channels, {shape[1:]}",
                "a map with them, of 1 where it has no more",
            )

    @cached_property
    def program(self) -> Program:
        """Its moves from the image to the first output, in which a head counts as the window that its conversion is.

        Raises:
            InputError: naming a layer whose reach is not known; where a head's training size is not.
        """
        return self._program(as_built=not self.has_head)

    @cached_property
    def program_as_built(self) -> Program:
        """Its moves as it stands: a head looks everywhere, and a layer of unknown reach is kept as such."""
        return self._program(as_built=True, lenient=True)

    def _program(self, as_built: bool, lenient: bool = False) -> Program:
        self._check_one_input()
        graph, kinds, count = self.graph, self.head.kinds, self.axes.count
        sizes: dict[int, Ints] = dict.fromkeys(graph.inputs, self.training_size or ())
        instructions = []
        for index, step in enumerate(graph.steps):
            if all(kinds[key] == "vector" for key in step.inputs):
                moves: tuple[Move, ...] = (Pointwise(),) * count
            elif index in self.head.collapses:
                moves = (Everywhere(),) * count if as_built else self._windows(sizes.get(step.inputs[0], ()))
            else:
                moves = self._moves(index, lenient)
            for key in step.outputs:
                instructions.append(Instruction(moves, step.inputs, key, step.path))
                if self.training_size and not as_built:
                    sides = zip(*(sizes[source] for source in step.inputs), strict=True)
                    sizes[key] = tuple(move.size(along) for move, along in zip(moves, sides, strict=True))
        return Program(tuple(instructions), graph.inputs[0], graph.outputs[0], count)

    def _windows(self, sides: Ints) -> tuple[Move, ...]:
        if not sides:
            raise InputError(f"model {self.name!r}: its training size is not known; convert it with image_size first")
        return tuple(map(Slide, sides))

    def _moves(self, index: int, lenient: bool) -> tuple[Move, ...]:
        try:
            return moves_of(self.graph.steps[index], self.head.kinds, self.axes)
        except InputError:
            if not lenient:
                raise
            return (Unknown(),) * self.axes.count

    def moves(self, index: int) -> tuple[Move, ...]:
        """What a step does along each axis, as the program has it.

        Raises:
            InputError: as `program`.
        """
        return self._moves_of_outputs[self.graph.steps[index].outputs[0]]

    @cached_property
    def _moves_of_outputs(self) -> dict[int, tuple[Move, ...]]:
        return {each.output: each.moves for each in self.program.instructions}

    def check_takes(self, size: Ints) -> None:
        """Check that every layer takes an image of a size.

        Raises:
            InputError: naming the layer that does not.
        """
        self.shapes(size)

    @property
    def gives_map(self) -> bool:
        """Whether its first output has positions; a map of one position, for an image of any size, is one answer."""
        return len(self.model.outputs[0].shape) != 2 and self.card.pooling != "global"

    def shapes(self, size: Shape | None = None) -> dict[int, Shape]:
        """The shape of every tensor without the batch, by its key, for an image of `size` (see `shapes_at`)."""
        return shapes_at(self.graph, size)

    def spans(self, size: Shape | None = None) -> dict[int, tuple[Span, ...] | None]:
        """What every tensor looks at along each axis, by its key: a head at the whole map; None where not known."""
        return self.program_as_built.known_spans(size or (None,) * self.axes.count)

    @cached_property
    def smallest_image(self) -> Ints | None:
        """The least equal sides at which every window fits and the maps that are merged have one size.

        A head that flattens its map takes the training size and no other. None where a layer's reach is not known, or
        no side up to 4,096 fits.
        """
        if any(self.is_flattened(index) for index in self.head.collapses):
            return self.training_size
        return self.program_as_built.smallest_image()

    def is_flattened(self, index: int) -> bool:
        """Whether a step of the head keeps every position's numbers apart, as Flatten does, and pools none."""
        return index in self.head.collapses and global_pooling(self.graph.steps[index], self.axes) is None

    def check_one_image(self, counts: tuple[int, ...] = (2,)) -> None:
        """Check that the model takes one image with two spatial axes, or one of the other numbers in `counts`.

        Raises:
            InputError: for several inputs, a vector, or another number of axes.
        """
        inputs, rank = self.model.inputs, self.axes.rank
        if len(inputs) == 1 and len(inputs[0].shape) - 2 in counts:
            grown = [step for step in self.graph.steps if len(step.output_shape) > rank == len(step.shapes[0]) == 3]
            if grown:
                sides = tuple(inputs[0].shape[1:])
                refuse(
                    f"model {self.name!r}",
                    f"{sides}, images without an axis of channels, which layer {grown[0].path!r} adds",
                    f"{(*sides, 1)}, in the same model after that layer",
                )
            return
        form = "one image, (height, width, channels)"
        if 1 in counts:
            form += ", or one sequence, (length, channels)"
        if len(inputs) == 1 and len(inputs[0].shape) == 3:
            form += "; images without an axis of channels have one more, of 1, in a model that begins with it"
        shapes = [tuple(tensor.shape[1:]) for tensor in inputs]
        names = [f"{quoted(tensor.name)} {shape}" for tensor, shape in zip(inputs, shapes, strict=True)]
        received = str(shapes[0]) if len(inputs) == 1 else f"{len(inputs)} inputs, {' and '.join(names)}"
        raise InputError(f"model {self.name!r}: takes {received}; accepted: {form}")

    def _check_one_input(self) -> None:
        if len(self.graph.inputs) != 1:
            self.check_one_image((0, 1, 2, 3))

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of its outputs: those of a dict, else of the layers that make them; repeated ones have a number."""
        names = output_names(self.model)
        before = [names[:index].count(name) for index, name in enumerate(names)]
        return tuple(f"{name}_{count + 1}" if count else name for name, count in zip(names, before, strict=True))

    def check_one_output(self) -> None:
        """Check that the model has one output.

        Raises:
            InputError: where it has several, with their names.
        """
        if len(self.model.outputs) != 1:
            names = listing([quoted(name) for name in self.output_names])
            raise InputError(
                f"model {self.name!r}: has {len(self.model.outputs)} outputs, {names}; accepted: one, a vector of "
                "classes, or the name of the one to use"
            )

    def output(self, name: str | None) -> "Network":
        """The network of one output, by its name; the network itself where that is None and it has one output.

        Raises:
            InputError: where no output has that name; where the model has several and no name is given.
        """
        if name is None:
            self.check_one_output()
            return self
        if name not in self.output_names:
            raise InputError(unknown("output", name, self.output_names))
        if len(self.output_names) == 1:
            return self
        chosen = self.model.outputs[self.output_names.index(name)]
        inputs = self.model.inputs
        model = keras.Model(inputs[0] if len(inputs) == 1 else inputs, chosen, name=self.name)
        attach(model, self.card.of_output(chosen.shape[-1]))
        return Network.of(model, self._given_size)


def _numbers_a_position(tensor: keras.KerasTensor, axes: Axes, kind: Kind) -> int:
    return 1 if kind == "plane" else tensor.shape[axes.channel if len(tensor.shape) == axes.rank else -1]


def _bytes(tensor: keras.KerasTensor) -> int:
    return 2 if "16" in tensor.dtype else np.dtype(tensor.dtype).itemsize


def geometry(model: keras.Model, image_size: tuple[int, ...] | None = None) -> Geometry:
    """The geometry of a fully-convolutional model's grid; of a classifier, that of its conversion.

    Args:
        model: a Functional or Sequential model.
        image_size: (height, width), or (length,), of the image. `cell_field` needs it, and so does the offset where
            SAME padding at a stride makes it depend on the size.

    Raises:
        InputError: naming a layer whose reach is not known; where a classifier's training size is not, or the model
            takes something else than one image.
    """
    return Network.of(model).geometry(image_size)
