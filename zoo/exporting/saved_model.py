"""SavedModel: a folder, whose `assets.extra` holds what it carries."""

from pathlib import Path

from zoo.errors import InputError
from zoo.exporting.carried import MEMBER
from zoo.exporting.format import Format
from zoo.files import Output

_FOLDER = "assets.extra"


class SavedModel(Format):
    """TensorFlow's own format."""

    name = "saved_model"
    keras_name = "tf_saved_model"
    needs = ("tensorflow",)
    runtime = "tensorflow"
    backends = ("tensorflow", "jax")

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
        return (path / "saved_model.pb").is_file()

    def outputs(self, path: Path) -> list[Output]:
        """The folder.

        Raises:
            InputError: where it is one of other files.
        """
        if path.is_dir() and any(path.iterdir()) and not self.holds(path):
            raise InputError(f"export path {str(path)!r}: exists already, with other files in it; accepted: a new path")
        return super().outputs(path)
