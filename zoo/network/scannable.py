"""What a scan needs of a model, whether Keras or another runtime computes it. No backend is needed here."""

import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.card import Card
from zoo.errors import refuse
from zoo.network.geometry import Geometry, place
from zoo.network.program import Ints, Program
from zoo.scores import Outputs


class Scannable(ABC):
    """A model as a scan sees it: its moves from image to grid, its card, and what its scores are.

    Its scores come from an engine that is made for it (see `zoo.engines.engine`).
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The model's name."""

    @property
    @abstractmethod
    def card(self) -> Card:
        """What travels with the model."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """The channels of its images."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype:
        """The type of pixels and scores: float64 for a model that answers in it, else float32."""

    @property
    @abstractmethod
    def compute_dtypes(self) -> set[str]:
        """The names of the types that it is computed in."""

    @property
    @abstractmethod
    def outputs_are(self) -> tuple[Outputs, ...]:
        """What each output is."""

    @property
    @abstractmethod
    def training_size(self) -> Ints | None:
        """The sides that it was trained at, None where they are not known."""

    @property
    @abstractmethod
    def window(self) -> Ints | None:
        """The sides of the crop that a cell stands for, None where that is its receptive field, or the whole image."""

    @property
    @abstractmethod
    def program(self) -> Program:
        """Its moves from the image to its first output, in which a head counts as the window of its conversion.

        Raises:
            InputError: where they are not known.
        """

    @property
    @abstractmethod
    def bytes_a_position(self) -> dict[int, int]:
        """The bytes that every tensor takes for each of its positions, by its key in the program."""

    @property
    @abstractmethod
    def smallest_image(self) -> Ints | None:
        """The least equal sides that every layer takes, None where they are not known."""

    @abstractmethod
    def key(self) -> str:
        """What the model computes, as text."""

    @abstractmethod
    def units(self, output: int = 0) -> int:
        """How many numbers an output gives at a cell, or for an image."""

    @abstractmethod
    def check_one_image(self, counts: tuple[int, ...] = (2,)) -> None:
        """Check that the model takes one image with two spatial axes, or one of the other numbers in `counts`.

        Raises:
            InputError: where it takes something else.
        """

    @abstractmethod
    def check_one_output(self) -> None:
        """Check that the model has one output.

        Raises:
            InputError: where it has several.
        """

    @abstractmethod
    def check_takes(self, size: Ints) -> None:
        """Check that every layer takes an image of a size, (height, width).

        Raises:
            InputError: where one does not.
        """

    @property
    @abstractmethod
    def gives_map(self) -> bool:
        """Whether it gives scores at the cells of a grid, and not one answer for an image."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, or numbers where the file has no names; a single output is class 1's.

        Raises:
            InputError: for a model with several outputs.
        """
        self.check_one_output()
        units = self.units()
        return self.card.class_names or (tuple(str(index) for index in range(units)) if units > 1 else ("1",))

    def geometry(self, image_size: Sequence[int] | None = None) -> Geometry:
        """The geometry of its grid; of a classifier, that of its conversion (see `zoo.geometry`)."""
        self.check_one_image((1, 2))
        size = None if image_size is None else check_size(image_size, self.program.axes)
        is_global = self.card.pooling == "global"
        return place(self.program, size, self.training_size, self.window, is_global)


def check_size(size: Any, axes: int) -> Ints:
    """An `image_size` as whole numbers, one for each of `axes` axes.

    Raises:
        InputError: for anything but `axes` whole numbers above 0.
    """
    try:
        sides = tuple(operator.index(side) for side in size)
    except TypeError:
        sides = ()
    if len(sides) != axes or min(sides, default=0) < 1:
        refuse("image_size", f"{size}", f"{axes} number{'s' * (axes > 1)} above 0")
    return sides
