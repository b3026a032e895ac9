"""Data: tensorflow-datasets, image folders, .npz files and the bundled digits; single images; canvases.

Nothing here needs Keras, and only sets of tensorflow-datasets need TensorFlow, which is imported when they are read.
"""

from functools import partial

import numpy as np

from zoo.config import Config
from zoo.config.experiment import DataConfig
from zoo.data import arrays, folder, tfds
from zoo.data.audit import audit, empty_classes, leaks
from zoo.data.canvas import Canvas as Canvas
from zoo.data.canvas import make_canvas as make_canvas
from zoo.data.faults import Fault as Fault
from zoo.data.form import ImageForm as ImageForm
from zoo.data.splits import Dataset as Dataset
from zoo.data.splits import Reader, hold_out
from zoo.data.splits import Split as Split
from zoo.errors import InputError, quoted, refuse
from zoo.pictures import fit_image as fit_image
from zoo.pictures import read_image as read_image

# What reads each source, by data.name; any other name is a set of tensorflow-datasets.
READERS: dict[str, Reader] = {
    "digits": arrays.read_digits,
    "npz": arrays.read_npz,
    "image_folder": folder.read_folder,
}


def is_at_hand(data: DataConfig) -> bool:
    """Whether reading a data set downloads nothing."""
    return data.name in READERS or tfds.is_prepared(data)


def load(config: Config) -> Dataset:
    """Read the data set that an experiment names, in the form that its model takes; see `read`."""
    return read(config.data, ImageForm.of(config), config.model.num_classes, config.seed)


def read(data: DataConfig, form: ImageForm, num_classes: int, seed: int) -> Dataset:
    """Read a data set.

    Images of another size are cropped or padded in the centre, or scaled where the form asks for it (see `fit_image`).
    Validation images are those of the set's own part, else carved from the training images; the test split depends on
    no seed. What the user may not mean is reported in `Dataset.faults`; the images are used as they are.

    Args:
        data: where the images come from, and how they are split.
        form: what they are brought to.
        num_classes: how many classes there have to be.
        seed: what the choice of validation images is a function of.

    Raises:
        InputError: where the data cannot be read, or do not fit the form or the number of classes.
    """
    name = data.name
    _check_keys(data)
    source = READERS.get(name, partial(tfds.read_tfds, others=tuple(READERS)))(data, form, num_classes)
    parts = source.parts
    for part, split in parts.items():
        _check_part(name, part, split, len(source.class_names))
    faults = [*source.faults, *audit(parts, form.size, form.resize)]
    train, validation = source.train, source.validation
    if validation is not None:
        held_out = f"{len(validation):,} images of the set's own validation part (data.validation is not used)"
    else:
        train, validation = hold_out(train, data.validation, seed)
        held_out = "trained on all training images"
        if validation:
            faults += leaks("training", train, "validation", validation)
            parts |= {"training": train, "validation": validation}
            images = "training images" if data.group is None else "training images, whole specimens,"
            held_out = f"{len(validation):,} {images} held out for validation by seed {seed}"
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


def _check_keys(data: DataConfig) -> None:
    """Check that no key is given that means something to image folders alone."""
    for key in ("test", "group"):
        received, usual = getattr(data, key), DataConfig.model_fields[key].default
        if data.name != "image_folder" and received != usual:
            accepted = f"{'null' if usual is None else usual} with data.name = {data.name}"
            refuse(f"data.{key}", quoted(received), accepted)


def _check_part(name: str, part: str, split: Split, classes: int) -> None:
    if not len(split):
        raise InputError(f"data set {name}: has no {part} images")
    wrong = np.flatnonzero((split.labels < 0) | (split.labels >= classes))
    if wrong.size:
        raise InputError(
            f"data set {name}: {part} image {wrong[0]} has the label {split.labels[wrong[0]]}; "
            f"accepted: 0 to {classes - 1}"
        )
