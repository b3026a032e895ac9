"""A package for bioimage.io: a zip archive of an ONNX file, its description in YAML, test tensors and a README.

Source: the model description of format version 0.5 of bioimage.io's `spec-bioimage-io`.
"""

import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.exporting.carried import Carried, Precision
from zoo.exporting.format import About
from zoo.exporting.onnx_file import Onnx

if TYPE_CHECKING:
    import keras

    from zoo.network.network import Network

# `zoo.exporting.alone` has this name too.
WEIGHTS = "weights.onnx"


class BioImageIo(Onnx):
    """A package with ONNX weights, for programs that read bioimage.io's: deepImageJ, ilastik, BiaPy."""

    name = "bioimageio"
    ending = ".zip"
    precisions: ClassVar[tuple[Precision, ...]] = ("float32",)  # what an .onnx file is quantised by writes no archive

    def write(self, model: "keras.Model", path: Path, carried: Carried) -> None:
        """Write a package of the weights alone, which `complete` adds the others to."""
        with _folder() as folder:
            super().write(model, folder / WEIGHTS, carried)
            _pack(folder, path)

    def embed(self, path: Path, text: str) -> None:
        """Put it into the ONNX file's `metadata_props`."""
        with _unpacked(path) as folder:
            super().embed(folder / WEIGHTS, text)
            _pack(folder, path)

    def text(self, path: Path) -> str:
        """The entry of the ONNX file, by ONNX Runtime."""
        with _folder() as folder, zipfile.ZipFile(path) as package:
            return super().text(Path(package.extract(WEIGHTS, folder)))

    def complete(
        self, path: Path, network: "Network", carried: Carried, images: Sequence[Any], about: About | None
    ) -> None:
        """Add what describes the model: YAML, test tensors of `images` or noise, and a README.

        Raises:
            InputError: where the size of an output follows no rule of the format's.
        """
        from zoo.exporting.bioimageio_description import describe

        with _unpacked(path) as folder:
            describe(folder, folder / WEIGHTS, network, carried, images, about or About())
            _pack(folder, path)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="zoo-export-") as folder:
        yield Path(folder)


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    with _folder() as folder, zipfile.ZipFile(path) as package:
        package.extractall(folder)
        yield folder


def _pack(folder: Path, path: Path) -> None:
    """Write the files of a folder into an archive, stored as they are: weights do not get smaller."""
    with zipfile.ZipFile(path, "w") as package:
        for file in sorted(folder.iterdir()):
            package.write(file, file.name)
