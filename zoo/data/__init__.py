"""Data: tensorflow-datasets, image folders, .npz files and the bundled digits; single images; canvases.

Nothing here needs Keras, and only sets of tensorflow-datasets need TensorFlow, which is imported when they are read.
"""

import numpy as np

from zoo.config import Config
from zoo.config.experiment import DataConfig
from zoo.data import arrays, folder, tfds
from zoo.data.audit import audit, empty_classes, leaks
from zoo.data.canvas import Canvas as Canvas
from zoo.data.canvas import make_canvas as make_canvas
from zoo.data.faults import Fault as Fault
from zoo.data.splits import Dataset as Dataset
from zoo.data.splits import Split as Split
from zoo.data.splits import hold_out
from zoo.errors import InputError
from zoo.pictures import fit_image as fit_image
from zoo.pictures import read_image as read_image

_READERS = {"digits": arrays.read_digits, "npz": arrays.read_npz, "image_folder": folder.read_folder}


def load(config: Config) -> Dataset:
    """Read the data set that a config names, at its model's image size and channels.

    Images of another size are cropped or padded in the centre, with `data.resize` scaled (see `fit_image`).
    Validation images are those of the set's own part, else carved from the training images by `config.seed`; the test
    split depends on no seed. What the user may not mean is told in `Dataset.faults`; the images are used as they are.

    Raises:
        InputError: where the data cannot be read, or does not fit `config.model`.
    """
    name = config.data.name
    _check_keys(config.data)
    source = _READERS.get(name, tfds.read_tfds)(config)
    parts = source.parts
    for part, split in parts.items():
        _check_part(name, part, split, len(source.class_names))
    faults = [*source.faults, *audit(parts, config.model.image_size, config.data.resize)]
    if source.validation is not None:
        train, validation = source.train, source.validation
        held_out = f"{len(validation):,} images of the set's own validation part (data.validation is not used)"
    else:
        train, validation = hold_out(source.train, config.data.validation, config.seed)
        held_out = "trained on all training images"
        if validation:
            faults += leaks("training", train, "validation", validation)
            parts |= {"training": train, "validation": validation}
            images = "training images" if config.data.group is None else "training images, whole specimens,"
            held_out = f"{len(validation):,} {images} held out for validation by seed {config.seed}"
    return Dataset(
        name,
        source.class_names,
        train,
        validation,
        source.test,
        f"{held_out}; {source.note}",
        source.fingerprint,
        source.test_fingerprint,
        source.unreadable,
        (*faults, *empty_classes(parts, source.class_names)),
    )


def _check_keys(config: DataConfig) -> None:
    """See that no key is given that means something to image folders alone."""
    for key in ("test", "group"):
        received, usual = getattr(config, key), DataConfig.model_fields[key].default
        if config.name != "image_folder" and received != usual:
            accepted = f"accepted for data.name = {config.name}: {'null' if usual is None else usual}"
            raise InputError(f"data.{key}: received {received!r}; {accepted}")


def _check_part(name: str, part: str, split: Split, classes: int) -> None:
    if not len(split):
        raise InputError(f"data set {name}: has no {part} images")
    wrong = np.flatnonzero((split.labels < 0) | (split.labels >= classes))
    if wrong.size:
        raise InputError(
            f"data set {name}: {part} image {wrong[0]} has the label {split.labels[wrong[0]]}; "
            f"accepted: 0 to {classes - 1}"
        )
