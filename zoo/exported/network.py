"""An exported file as a scan sees it: a network whose scores its own runtime computes, without Keras."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from zoo.card import Card
from zoo.engines.engine import Engine, Run, RuntimeName
from zoo.errors import InputError, listing, quoted, refuse, unknown
from zoo.exported.carried import Carried, ScoreTensor
from zoo.exported.format import EngineFormat
from zoo.exported.formats import FORMATS
from zoo.exported.reading import format_at
from zoo.network.program import Ints, Program
from zoo.network.scannable import Scannable
from zoo.scores import Outputs

# Bytes of a number, in which these files compute.
_BYTES = 4


@dataclass(frozen=True)
class ExportedNetwork(Scannable):
    """A file of `zoo export` in a format whose runtime is an engine; made by `ExportedNetwork.at`.

    `path`: the file. `kind`: its format. `carried`: what travels in it. `given_outputs`: those that are meant.
    """

    path: Path
    kind: EngineFormat
    carried: Carried
    given_outputs: tuple[ScoreTensor, ...]

    @classmethod
    def at(cls, path: str | Path) -> "ExportedNetwork":
        """Read what a file carries.

        Raises:
            InputError: where it is no file of `zoo export`, or its format's runtime is no engine, or not installed.
        """
        path = Path(path)
        if not isinstance(kind := format_at(path), EngineFormat):
            raise InputError(f"exported file {str(path)!r}: accepted: {' or '.join(engine_endings())}")
        kind.check_runtime()
        carried = kind.carried(path)
        return cls(path, kind, carried, carried.outputs)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.carried.model

    @property
    def card(self) -> Card:
        """What travels with the model."""
        units = [self._units(each) for each in self.given_outputs]
        return self.carried.card if len(self.carried.outputs) == 1 else self.carried.card.of_output(units[0])

    @property
    def channels(self) -> int:
        """The channels of its images."""
        return int(self.carried.image.shape[1 if self.carried.channels_first else -1] or 0)

    @property
    def dtype(self) -> np.dtype:
        """The type of pixels and scores."""
        return np.dtype(np.float32)

    @property
    def compute_dtypes(self) -> set[str]:
        """The name of the type that it is computed in."""
        return {self.carried.precision}

    @property
    def outputs_are(self) -> tuple[Outputs, ...]:
        """What each output is."""
        return tuple(each.outputs for each in self.given_outputs)

    @property
    def training_size(self) -> Ints | None:
        """The sides that it was trained at, None where they are not known."""
        return self.carried.training_size

    @property
    def window(self) -> Ints | None:
        """The sides of the crop that a cell stands for, None where that is its receptive field, or the whole image."""
        return self.carried.window

    @cached_property
    def program(self) -> Program:
        """Its moves from the image to its first output, in which a head counts as the window of its conversion.

        Raises:
            InputError: where the file has none.
        """
        key = self.given_outputs[0].key
        if self.carried.program is None or key is None:
            refuse(f"model {self.name!r}", "a layer whose reach is not known", "a model of local layers")
        return Program.from_data(self.carried.program).up_to(key)

    @property
    def bytes_a_position(self) -> dict[int, int]:
        """The bytes that every tensor takes for each of its positions, by its key in the program."""
        return {key: _BYTES * count for key, count in self.carried.numbers_a_position.items()}

    @cached_property
    def smallest_image(self) -> Ints | None:
        """The least equal sides that every layer takes, None where they are not known."""
        return self.program.smallest_image()

    def key(self) -> str:
        """What the model computes, as text: a hash of its files."""
        digest = hashlib.blake2b(digest_size=8)
        for file in exported_files(self.path):
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def units(self, output: int = 0) -> int:
        """How many numbers an output gives at a cell, or for an image."""
        return self._units(self.given_outputs[output])

    def _units(self, output: ScoreTensor) -> int:
        is_map = len(output.shape) == len(self.carried.image.shape)
        return int(output.shape[1 if is_map and self.carried.channels_first else -1] or 0)

    @property
    def gives_map(self) -> bool:
        """Whether it gives scores at the cells of a grid, and not one answer for an image."""
        return len(self.given_outputs[0].shape) != 2 and self.card.pooling != "global"

    def check_one_image(self, counts: tuple[int, ...] = (2,)) -> None:
        """Check that the model takes one image with two spatial axes, or one of the other numbers in `counts`.

        Raises:
            InputError: where it takes something else.
        """
        shape = self.carried.image.shape[1:]
        if len(shape) - 1 not in counts:
            raise InputError(f"model {self.name!r}: takes {shape}; accepted: one image, (height, width, channels)")

    def check_one_output(self) -> None:
        """Check that the model has one output, or one of them is chosen.

        Raises:
            InputError: where it has several.
        """
        if len(self.given_outputs) > 1:
            names = listing([quoted(each.name) for each in self.given_outputs])
            raise InputError(
                f"model {self.name!r}: has {len(self.given_outputs)} outputs, {names}; accepted: one, a vector of "
                "classes, or the name of the one to use"
            )

    def check_takes(self, size: Ints) -> None:
        """Check that every layer takes an image of a size.

        Raises:
            InputError: where one does not.
        """
        if not self.program.fits(*size):
            least = self.smallest_image
            accepted = f"sides that every layer fits, from {least[0]} x {least[1]} on" if least else "a larger one"
            refuse("image", f"{' x '.join(map(str, size))} pixels", accepted)

    def check_scannable(self) -> None:
        """Check that it gives a map for images of any size, as the export of a converted model does.

        Raises:
            InputError: where it does not.
        """
        self.check_one_image()
        sides = self.carried.image.shape[2:] if self.carried.channels_first else self.carried.image.shape[1:-1]
        if not self.gives_map or set(sides) != {None}:
            given = "one answer for an image" if not self.gives_map else f"a map for images of {sides} alone"
            accepted = "the export of its conversion (`zoo convert`, then `zoo export`), or the Keras model itself"
            refuse(f"model {self.name!r} in {str(self.path)!r}", given, accepted)

    def output(self, name: str | None) -> "ExportedNetwork":
        """The network of one output, by its name; itself where that is None and it has one output.

        Raises:
            InputError: where no output has that name; where it has several and no name is given.
        """
        if name is None:
            self.check_one_output()
            return self
        named = {each.name: each for each in self.carried.outputs}
        if name not in named:
            raise InputError(unknown("output", name, named))
        return ExportedNetwork(self.path, self.kind, self.carried, (named[name],))

    def check_engine(self, name: str | None, precision: str | None) -> RuntimeName:
        """The engine that it has, its own runtime, in the precision that it was exported for.

        Raises:
            InputError: for another engine or precision.
        """
        own = self.kind.engine
        if name not in (None, own):
            refuse("engine", f"{quoted(name)} for {str(self.path)!r}", f"{own!r}, or the Keras model")
        if precision not in (None, self.carried.precision):
            accepted = f"{self.carried.precision!r}, in which it was exported"
            refuse("precision", f"{quoted(precision)} for {str(self.path)!r}", accepted)
        return own

    def engine(self) -> Engine:
        """What computes the scores of its one output.

        Raises:
            InputError: where it has several outputs; for a precision that this processor does not have, or does not
                compute as it was measured.
        """
        self.check_one_output()
        self.carried.check_processor()
        run = self.kind.scores(self.path, self.carried.precision, self.given_outputs[0].name)
        run = _channels_first(run) if self.carried.channels_first else run
        return Engine(self, self.kind.engine, run, self.carried.precision)


def _channels_first(run: Run) -> Run:
    """The same for maps (B, H, W, C) of what takes and gives (B, C, H, W)."""

    def turned(images: np.ndarray) -> np.ndarray:
        scores = run(np.ascontiguousarray(np.moveaxis(images, -1, 1)))
        return scores if scores.ndim == 2 else np.moveaxis(scores, 1, -1)

    return turned


def exported_files(path: Path) -> list[Path]:
    """What an exported file is read from: itself, and what belongs to it."""
    kind = format_at(path)
    return [] if kind is None else [each.path for each in kind.outputs(path)]


def engine_endings() -> list[str]:
    """The endings of files whose runtime is an engine."""
    return [each.ending for each in FORMATS.values() if isinstance(each, EngineFormat)]


def has_engine(path: str | Path) -> bool:
    """Whether a path is called as exported files are whose runtime is an engine."""
    return isinstance(format_at(Path(path)), EngineFormat)
