"""LiteRT: one file, to whose end a zip archive is appended that holds what it carries.

That is where LiteRT's metadata have a model's associated files; interpreters do not look at it, and any program for zip
archives opens it.
"""

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.exported.carried import MEMBER, Carried
from zoo.exported.format import CannotHold, Format

if TYPE_CHECKING:
    import keras


class LiteRT(Format):
    """LiteRT (TensorFlow Lite), of its own operations alone, without those that need TensorFlow's."""

    name = "litert"
    keras_name = "litert"
    ending = ".tflite"
    extra = "litert"
    needs = ("tensorflow",)
    runtime = "ai_edge_litert"

    def options(self) -> dict:
        """Without operations of TensorFlow (Flex), which LiteRT's interpreter does not have."""
        import tensorflow as tf

        return {"target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}}

    def write(self, model: "keras.Model", path: Path, carried: Carried) -> None:
        """Write it.

        Raises:
            CannotHold: naming the operations that LiteRT does not have.
        """
        try:
            super().write(model, path, carried)
        except CannotHold as error:
            # Of some thousand characters.
            needed = re.findall(r"^(?:TF Select|Custom) ops: (.*)$|'tf\.(\w+)' op ", str(error), re.MULTILINE)
            if needed:
                raise CannotHold(f"it would take TensorFlow's {needed[0][0] or needed[0][1]}") from None
            raise

    def embed(self, path: Path, text: str) -> None:
        """Append the archive, in place of one that is there."""
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                end = min((each.header_offset for each in archive.infolist()), default=archive.start_dir)
            with path.open("r+b") as file:
                file.truncate(end)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(MEMBER, text)

    def text(self, path: Path) -> bytes:
        """The archive's member."""
        with zipfile.ZipFile(path) as archive:
            return archive.read(MEMBER)
