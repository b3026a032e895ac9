"""What `zoo predict --explain` writes: the class activation maps of each image, drawn and as numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from zoo import model_files
from zoo.activation_maps import UnpooledHead
from zoo.activation_plots import activation
from zoo.classes import chosen_class
from zoo.cli.options import own_names
from zoo.files import Output, check_output, writing
from zoo.made_by import MadeBy, key_of
from zoo.network.network import Network
from zoo.predictions import Answer
from zoo.scanning.keys import image_key


class Explanations:
    """The pictures and maps of some images in a folder."""

    def __init__(
        self,
        file: Path,
        model: keras.Model,
        images: Sequence[Path],
        folder: Path,
        class_name: str | None,
        asked: dict[str, Any],
        overwrite: bool,
    ):
        """Check that the model has class activation maps, and that every image has a name of its own.

        Args:
            file: the model's file or run directory.
            model: the model.
            images: the image files.
            folder: where each has a .png and an .npz file.
            class_name: the class that is drawn beside the winner; None: the runner-up.
            asked: what else the answers depend on.
            overwrite: replace other files.

        Raises:
            InputError: where it has none, or two images have one name; for an unknown class.
        """
        self._head = UnpooledHead(Network.of(model))
        names = self._head.network.class_names
        class_name = chosen_class(class_name, names)
        self._chosen = None if class_name is None else names.index(class_name)
        check_output(folder, "--explain", folder=True)
        self._paths = [folder / name for name in own_names(images)]
        self._inputs = {"model": key_of(model_files.file_of(file)), "class": class_name, **asked}
        self._read, self._overwrite = [*model_files.files_of(file), *images], overwrite

    def write(self, index: int, answer: Answer) -> tuple[Path, Path]:
        """Write the maps of the image of this number, of which the model gave an answer: picture and numbers."""
        picture, arrays = (self._paths[index].with_name(f"{self._paths[index].name}{end}") for end in (".png", ".npz"))
        made_by = MadeBy("zoo predict", {**self._inputs, "image": image_key(answer.path)})
        with writing([Output(picture, "picture"), Output(arrays)], made_by, self._read, self._overwrite):
            found = self._head(answer.pixels)
            winner, *others = found.logits.argsort()[::-1].tolist()
            beside = others[:1] if self._chosen is None else [self._chosen]
            activation(found, answer.pixels, list(dict.fromkeys([winner, *beside])), picture, made_by)
            found.save(arrays, made_by)
        return picture, arrays
