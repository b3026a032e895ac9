"""What an exported file carries: the model's card, its inputs and outputs, its moves, and how it was verified.

It lies as JSON inside the file, at a place of each format's own, and is read without Keras.
"""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import Field, ValidationError

from zoo import processor
from zoo.card import Card, Sides
from zoo.engines.engine import Precision
from zoo.errors import InputError, refuse
from zoo.network.geometry import Geometry, place
from zoo.network.program import Program
from zoo.schema import Schema, one_line
from zoo.scores import Outputs

# The version of what is written here; a file of a newer one is refused.
VERSION = 1
# The name of the member, entry, element or file that holds it.
MEMBER = "zoo.json"


class Tensor(Schema):
    """A named input or output of an exported file; a side that is open is null."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class ScoreTensor(Tensor):
    """An output, what its numbers are, and its key among the tensors of the program; null where there is none."""

    outputs: Outputs
    key: int | None = None


class Verified(Schema):
    """How the file's runtime, in a process of its own, answered beside Keras.

    `tried_on`: what the images were cut out of. `images`: their shapes, with the batch. `error`: the largest
    max|a - b| / max|b| of an output at any of them, and `tolerance` what was accepted; null in int8, where winners
    decide. `same_winner`: the share of places with the same highest score; null where a place has one score alone.
    `error_of_files`: the same for PNG and JPEG files, beside `zoo predict`; null where none are taken.
    """

    runtime: str
    runtime_version: str
    tried_on: str
    images: tuple[tuple[int, ...], ...]
    error: float
    tolerance: float | None
    same_winner: float | None = None
    error_of_files: float | None = None

    def line(self) -> str:
        """The report in a line."""
        winner = "" if self.same_winner is None else f", the same winner at {self.same_winner:.1%} of the places"
        sizes = ", ".join("x".join(map(str, shape)) for shape in self.images)
        scores = f"{self.runtime} {self.runtime_version} gives Keras's scores within {self.error:.1e} (relative)"
        files = "" if self.error_of_files is None else f"; files of PNG and JPEG within {self.error_of_files:.1e}"
        return f"{scores}{winner}; tried on {self.tried_on}, {sizes}{files}"


class Quantised(Schema):
    """How a file in int8 answers test images, in its own runtime, beside the model in Keras.

    `calibrated_on`, `measured_on`: images, in words. `n`: those it was measured on. `weight_bits`: the bits of weights,
    of which 8 need a processor that does not saturate. `same_winner`: the share of images with the same highest score.
    `accuracy`, and `accuracy_in_keras`; null where labels were not known. `tolerance`: the fall in accuracy, or in
    their place the share of other winners, that was accepted.
    """

    by: str
    calibrated_on: str
    measured_on: str
    n: int
    weight_bits: int = 8
    same_winner: float
    accuracy_in_keras: float | None
    accuracy: float | None
    tolerance: float

    def line(self) -> str:
        """The report in a line."""
        same = f"the same winner for {self.same_winner:.2%} of {self.n:,} {self.measured_on}"
        right = ""
        if self.accuracy is not None and self.accuracy_in_keras is not None:
            right = f", accuracy {self.accuracy:.2%} (Keras {self.accuracy_in_keras:.2%})"
        return f"int8 by {self.by}, calibrated on {self.calibrated_on}: {same}{right}"


class Carried(Schema):
    """What travels in an exported file.

    `precision`: what the file is to be computed in. `channels_first`: whether maps are (B, C, H, W). `program`: the
    network's moves along each axis from the image to the outputs, as `Program.to_data` writes them, in which an
    unconverted head counts as the window of its conversion; null where a layer's reach is not known.
    `numbers_a_position`: how many numbers every tensor of the program has at each of its positions, by its key.
    `training_size` and `window`: what the geometry needs beside them. `quantised`: how int8 was measured; null in other
    precisions.
    """

    version: int = VERSION
    format: str
    precision: Precision
    model: str
    card: Card
    image: Tensor
    outputs: tuple[ScoreTensor, ...] = Field(min_length=1)
    channels_first: bool = False
    program: dict[str, Any] | None = None
    numbers_a_position: dict[int, int] = Field(default_factory=dict)
    training_size: Sides | None = None
    window: Sides | None = None
    verified: Verified | None = None
    quantised: Quantised | None = None

    def text(self) -> str:
        """All of it as JSON, of ASCII characters alone, which every format holds."""
        return json.dumps(self.model_dump(mode="json"), allow_nan=False)

    @classmethod
    def of_text(cls, text: str | bytes, what: str) -> "Carried":
        """The same from its JSON; `what` names the file in errors.

        Raises:
            InputError: where it is of a newer version, or damaged.
        """
        try:
            data = json.loads(text)
            version = data["version"] if isinstance(data, dict) else None
            if isinstance(version, int) and version > VERSION:
                accepted = f"up to {VERSION}, which this version of the zoo reads; a newer one reads this file"
                refuse(f"{what}: format version", f"{version}", accepted)
            return cls.model_validate(data)
        except (ValueError, KeyError, ValidationError) as error:
            if isinstance(error, InputError):
                raise
            why = one_line(error, data) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
            raise InputError(f"{what}: its {MEMBER} is damaged ({why}); accepted: a file of `zoo export`") from None

    def check_processor(self) -> None:
        """Check that this processor computes the file as the one that it was measured on.

        Raises:
            InputError: for weights of 8 bits where sums of their products overflow, which changes scores silently.
        """
        if self.quantised is not None and self.quantised.weight_bits > 7 and processor.saturates():
            received = "weights of 8 bits, whose sums overflow on this processor, which is without VNNI"
            accepted = "a file that was exported on a processor without VNNI, or in another precision"
            refuse(f"model {self.model!r} in int8", received, accepted)

    def geometry(self, image_size: Sequence[int] | None = None) -> Geometry:
        """The geometry of the first output's grid, as `zoo.geometry` gives it of the model.

        Raises:
            InputError: where the file carries no moves.
        """
        if self.program is None:
            refuse(f"model {self.model!r}", "a layer whose reach is not known", "a model of local layers")
        size = None if image_size is None else tuple(image_size)
        is_global = self.card.pooling == "global"
        return place(Program.from_data(self.program), size, self.training_size, self.window, is_global)
