"""Data: tensorflow-datasets, image folders, .npz files and the bundled digits; single images; scenes.

Nothing here needs Keras, and only sets of tensorflow-datasets need TensorFlow, which is imported when they are read.
"""

import numpy as np

from zoo.config import Config
from zoo.data import arrays, folder, tfds
from zoo.data.scenes import Scene as Scene
from zoo.data.scenes import make_scene as make_scene
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
    Validation images are carved from the training images by `config.seed`; the test split depends on no seed.

    Raises:
        InputError: where the data cannot be read, or does not fit `config.model`.
    """
    name = config.data.name
    source = _READERS.get(name, tfds.read_tfds)(config)
    classes = len(source.class_names)
    for part, split in (("training", source.train), ("test", source.test)):
        if not len(split):
            raise InputError(f"data set {name}: has no {part} images")
        wrong = np.flatnonzero((split.labels < 0) | (split.labels >= classes))
        if wrong.size:
            raise InputError(
                f"data set {name}: {part} image {wrong[0]} has the label {split.labels[wrong[0]]}; "
                f"accepted: 0 to {classes - 1}"
            )
    train, validation = hold_out(source.train, config.data.validation, config.seed)
    held_out = (
        f"{len(validation):,} training images held out for validation by seed {config.seed}"
        if validation
        else "trained on all training images"
    )
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
    )
