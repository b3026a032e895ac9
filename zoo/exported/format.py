"""What a format of exported files is: how it is written, where it holds what it carries, and what runs it."""

import contextlib
import errno
import importlib.util
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from zoo.engines.engine import Run, RuntimeName
from zoo.errors import InputError, cause, refuse
from zoo.exported import alone
from zoo.exported.carried import MEMBER, Carried, Precision
from zoo.exported.image_bytes import FileForm
from zoo.files import Output
from zoo.installed import with_extra
from zoo.progress import silent_stderr

if TYPE_CHECKING:
    import keras


# The name of the one input.
IMAGE = "image"
# Errors of TensorFlow that are about a graph; its others are about files.
_OF_GRAPHS = ("InvalidArgumentError", "UnimplementedError", "NotFoundError", "InternalError")


class CannotHold(Exception):
    """A model has something that a format, or its runtime, has not; the message is the converter's or runtime's."""


class Format(ABC):
    """One format. A kind of it says what it is, and overrides how it is written and where it holds text.

    `name`: as `--format` takes it. `keras_name`: what Keras calls it. `ending`: of its files; a folder has none.
    `needs`: the modules that write it. `runtime`: the module that runs it. `extra`: the extra that brings these.
    `backends`: those of Keras that write it. `pixels`: the type of the image that it takes, where that is not the
    model's own. `precisions`: what it can be computed in. `beside`: endings of files that belong to the first.
    """

    name: ClassVar[str]
    keras_name: ClassVar[str]
    ending: ClassVar[str] = ""
    extra: ClassVar[str | None] = None
    needs: ClassVar[tuple[str, ...]]
    runtime: ClassVar[str]
    backends: ClassVar[tuple[str, ...]] = ("tensorflow",)
    pixels: ClassVar[str | None] = None
    precisions: ClassVar[tuple[Precision, ...]] = ("float32",)
    beside: ClassVar[tuple[str, ...]] = ()

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of files."""
        return not self.ending

    @abstractmethod
    def embed(self, path: Path, text: str) -> None:
        """Put `text` into a file that was just written, in place of what is there."""

    @abstractmethod
    def text(self, path: Path) -> str | bytes:
        """What `embed` put there.

        Raises:
            KeyError: where there is none.
            Exception: whatever the format's reader raises for another file.
        """

    def holds(self, path: Path) -> bool:
        """Whether a path is called as files of this format are."""
        return path.name.endswith(self.ending)

    def write(self, model: "keras.Model", path: Path, carried: Carried) -> None:
        """Write a model whose outputs are a dict, by their names; its input `image` takes what `carried` says.

        Raises:
            CannotHold: where the converter finds something that the format has not.
        """
        import keras

        shape = (None, *model.inputs[0].shape[1:])
        signature = [keras.InputSpec(dtype=carried.image.dtype, shape=shape, name=IMAGE)]
        with converting(path):
            self.convert(model, path, signature, carried)

    def convert(self, model: "keras.Model", path: Path, signature: list["keras.InputSpec"], carried: Carried) -> None:
        """Have Keras write it."""
        model.export(str(path), format=self.keras_name, verbose=False, input_signature=signature, **self.options())

    def files(self, carried: Carried) -> FileForm | None:
        """What files of images are brought to by a signature of their own, where the format has one for the model."""
        return None

    def options(self) -> dict:
        """Further arguments of Keras's export."""
        return {}

    def check(self, precision: Precision) -> None:
        """Check that what writes and runs the format is installed, and computes in a precision here.

        Raises:
            InputError: naming what is missing, and the extra that brings it; for another precision.
        """
        if precision not in self.precisions:
            refuse(f"export format {self.name!r}", f"precision {precision}", " or ".join(self.precisions))
        self._check_installed(*self.needs, self.runtime)

    def check_runtime(self) -> None:
        """Check that what runs the format is installed.

        Raises:
            InputError: naming the extra that brings it.
        """
        self._check_installed(self.runtime)

    def _check_installed(self, *modules: str) -> None:
        for module in modules:
            if importlib.util.find_spec(module) is None:
                how = with_extra(self.extra) if self.extra else f"pip install {module}"
                raise InputError(f"format {self.name!r}: needs {module}; {how}")

    def outputs(self, path: Path) -> list[Output]:
        """What an export to `path` writes, the file or folder that is asked for first.

        Raises:
            InputError: where that is a folder of other files.
        """
        if self.is_folder and path.is_dir() and any(path.iterdir()) and not self.holds(path):
            raise InputError(f"export path {str(path)!r}: exists already, with other files in it; accepted: a new path")
        first = Output(path, "export path", self.ending, self.is_folder)
        return [first, *(Output(path.with_suffix(each), "export path", owner=path) for each in self.beside)]

    def carried(self, path: Path) -> Carried:
        """What a file carries.

        Raises:
            InputError: where it carries nothing, is damaged, or of a newer version.
        """
        what = f"{self.name} file {str(path)!r}"
        if not path.exists():
            raise InputError(f"{what}: no such file")
        try:
            text = self.text(path)
        except OSError:
            raise
        except Exception as error:  # of whatever kind each format's reader has
            why = f"carries no {MEMBER}" if isinstance(error, KeyError) else f"cannot be read: {cause(error)}"
            raise InputError(f"{what}: {why}; accepted: a file of `zoo export`") from None
        return Carried.of_text(text, what)

    def opened(self, path: Path, precision: Precision = "float32") -> alone.Run:
        """The file in its runtime: from a batch of images of the file's own type to its outputs by name.

        Raises:
            InputError: where the runtime is not installed.
        """
        self.check_runtime()
        return alone.OPENERS[self.name](str(path), precision)


class EngineFormat(Format):
    """A format whose runtime is an engine of scans, called `engine`, and that has int8, by way of an .onnx file."""

    engine: ClassVar[RuntimeName]

    @abstractmethod
    def scores(self, path: Path, precision: Precision, output: str) -> Run:
        """The file in its runtime, as an engine: images of any numbers, as float32, to one output, by its name.

        What is scaled, or filled in at a border, is not rounded to the samples that the file takes, as Keras does not.
        """

    @abstractmethod
    def from_onnx(self, source: Path, path: Path) -> None:
        """Write what an .onnx file that was quantised says."""


@contextlib.contextmanager
def converting(path: Path) -> Iterator[None]:
    """Run a converter: quietly, with its errors as `CannotHold`, and TensorFlow's errors of files as OSError.

    Raises:
        OSError: naming `path`, where it cannot be written.
        CannotHold: for any other error of the converter.
    """
    try:
        with warnings.catch_warnings(), silent_stderr():
            # tf2onnx asks NumPy 2 for names that are gone, and goes on without them; tf.lite is to be LiteRT's own.
            warnings.simplefilter("ignore")
            yield
    except OSError:
        raise
    except Exception as error:
        tensorflow = sys.modules.get("tensorflow")
        is_of_tensorflow = tensorflow is not None and isinstance(error, tensorflow.errors.OpError)
        if is_of_tensorflow and type(error).__name__ not in _OF_GRAPHS:
            raise OSError(
                errno.EIO, f"TensorFlow cannot write it ({getattr(error, 'message', '')})", str(path)
            ) from error
        raise CannotHold(str(error).strip() or type(error).__name__) from error
