"""A folder for browsers: an ONNX file beside a page that runs it in ONNX Runtime's WebAssembly."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.exported.carried import MEMBER, Carried
from zoo.exported.onnx_file import OnnxFile

if TYPE_CHECKING:
    import keras

# `zoo.exported.alone` and the page's worker.js have this name too.
MODEL = "model.onnx"


class Web(OnnxFile):
    """A folder with an ONNX file; `zoo.exporting.web_page` adds the page, and its runtime for browsers."""

    name = "web"
    # What scaling makes of pixels is not rounded.
    pixels = "float32"

    def write(self, model: "keras.Model", path: Path, carried: Carried) -> None:
        """Write the model alone."""
        path.mkdir()
        super().write(model, path / MODEL, carried)

    def embed(self, path: Path, text: str) -> None:
        """Put it into the ONNX file, and write it beside that as `zoo.json`, which the page reads."""
        super().embed(path / MODEL, text)
        (path / MEMBER).write_text(text, encoding="utf-8")

    def text(self, path: Path) -> str:
        """The entry of the ONNX file, by ONNX Runtime."""
        return super().text(path / MODEL)

    def holds(self, path: Path) -> bool:
        """Whether a path is such a folder."""
        return os.path.isfile(path / MODEL) and os.path.isfile(path / MEMBER)  # of any name, one that is too long too
