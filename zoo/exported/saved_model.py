"""SavedModel: a folder, whose `assets.extra` holds what it carries."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.exported.carried import MEMBER, Carried
from zoo.exported.format import Format
from zoo.exported.image_bytes import INPUT, SIGNATURE, FileForm, endpoint

if TYPE_CHECKING:
    import keras

_FOLDER = "assets.extra"


class SavedModel(Format):
    """TensorFlow's own format."""

    name = "saved_model"
    keras_name = "tf_saved_model"
    needs = ("tensorflow",)
    runtime = "tensorflow"
    backends = ("tensorflow", "jax")

    def files(self, carried: Carried) -> FileForm | None:
        """Those of the signature `predict_bytes`; its graph is TensorFlow's, which a model in JAX is no part of."""
        import keras

        return FileForm.of(carried) if keras.backend.backend() == "tensorflow" else None

    def convert(self, model: "keras.Model", path: Path, signature: list["keras.InputSpec"], carried: Carried) -> None:
        """Have Keras write it, with the signature `predict_bytes` where files of images can be brought to its size."""
        form = self.files(carried)
        if form is None:
            return super().convert(model, path, signature, carried)
        import keras
        import tensorflow as tf

        archive = keras.export.ExportArchive()
        archive.track_and_add_endpoint("serve", model, signature)  # the first is `serving_default` too
        archive.add_endpoint(SIGNATURE, endpoint(form, model), [tf.TensorSpec([None], tf.string, INPUT)])
        archive.write_out(str(path), verbose=False)

    def embed(self, path: Path, text: str) -> None:
        """Write `assets.extra/zoo.json`."""
        (path / _FOLDER).mkdir(exist_ok=True)
        (path / _FOLDER / MEMBER).write_text(text, encoding="utf-8")

    def text(self, path: Path) -> str:
        """The file in `assets.extra`."""
        file = path / _FOLDER / MEMBER
        if not file.is_file():
            raise KeyError(MEMBER)
        return file.read_text(encoding="utf-8")

    def holds(self, path: Path) -> bool:
        """Whether a path is a folder with a SavedModel."""
        return os.path.isfile(path / "saved_model.pb")  # of any name, one that is too long too
