"""A package for bioimage.io: a zip archive of an ONNX file, its description in YAML, test tensors and a README.

Source: the model description of format version 0.5 of bioimage.io's `spec-bioimage-io`.
"""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.exported.carried import Carried
from zoo.exported.onnx_file import OnnxFile

if TYPE_CHECKING:
    import keras

# `zoo.exported.alone` has this name too.
WEIGHTS = "weights.onnx"


class BioImageIo(OnnxFile):
    """A package with ONNX weights, for programs that read bioimage.io's: deepImageJ, ilastik, BiaPy."""

    name = "bioimageio"
    ending = ".zip"

    def write(self, model: "keras.Model", path: Path, carried: Carried) -> None:
        """Write a package of the weights alone; `zoo.exporting.bioimageio_description` adds the others."""
        with _folder() as folder:
            super().write(model, folder / WEIGHTS, carried)
            _pack(folder, path)

    def embed(self, path: Path, text: str) -> None:
        """Put it into the ONNX file's `metadata_props`."""
        with repacked(path) as folder:
            super().embed(folder / WEIGHTS, text)

    def text(self, path: Path) -> str:
        """The entry of the ONNX file, by ONNX Runtime."""
        with _folder() as folder, zipfile.ZipFile(path) as package:
            return super().text(Path(package.extract(WEIGHTS, folder)))


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="zoo-export-") as folder:
        yield Path(folder)


@contextmanager
def repacked(path: Path) -> Iterator[Path]:
    """A folder of what is in a package, which is written anew of what is there then."""
    with _folder() as folder:
        with zipfile.ZipFile(path) as package:
            package.extractall(folder)
        yield folder
        _pack(folder, path)


def _pack(folder: Path, path: Path) -> None:
    """Write the files of a folder into an archive, stored as they are: weights do not get smaller."""
    with zipfile.ZipFile(path, "w") as package:
        for file in sorted(folder.iterdir()):
            package.write(file, file.name)
