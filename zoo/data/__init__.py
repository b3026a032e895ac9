"""Data: tensorflow-datasets, image folders, .npz files, the bundled digits and labelled large images; canvases.

Nothing here needs Keras, and only sets of tensorflow-datasets need TensorFlow, which is imported when they are read.

`zoo.config.sources` is the table of sources. A module here imports only from those before it: `form` (what images are
brought to), `faults` (what is reported), `splits` (what a reader gives, and what is held out of it); the readers
`arrays`, `tfds`, and `class_folders` (a folder's names) and `folder` (its images); `labels`, `scene_files`,
`scene_splits`, `marks` (what a user corrected), `crops` and `scenes` (large images with labels); `audit` (faults of
what was read); `canvas`; and this one, which reads a set by its source, checks it and divides it.
"""

import importlib
from dataclasses import replace

import numpy as np

from zoo.config import Config
from zoo.config.data import DataConfig
from zoo.config.sources import SOURCES, TFDS, DataSource
from zoo.data import tfds
from zoo.data.audit import audit, empty_classes, far_from_range, leaks
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


def is_at_hand(data: DataConfig) -> bool:
    """Whether reading a data set downloads nothing."""
    return data.source is not TFDS or tfds.is_prepared(data)


def reader(source: DataSource) -> Reader:
    """What reads a source."""
    module, function = source.reader.split(":")
    return getattr(importlib.import_module(module), function)


def load(config: Config) -> Dataset:
    """Read the data set that an experiment names, in the form that its model takes; see `read`."""
    dataset = read(config.data, ImageForm.of(config), config.model.num_classes, config.seed)
    takes = config.model.preprocess
    return replace(dataset, faults=(*dataset.faults, *far_from_range(dataset.train.images, takes.mean, takes.std)))


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
    given = reader(data.source)(data, form, num_classes)
    parts = given.parts
    for part, split in parts.items():
        _check_part(name, part, split, len(given.class_names))
    faults = [*given.faults, *audit(parts, form.size, form.resize)]
    train, validation = given.train, given.validation
    if given.scenes is not None:
        # Crops of one image are not held out from each other.
        held_out = f"{len(train):,} training crops of scenes"
    elif validation is not None:
        own = f"{len(validation):,} in the set's own validation part (data.validation is not used)"
        held_out = f"{len(train):,} training images, {own}"
    else:
        train, validation = hold_out(train, data.validation, seed)
        held_out = f"{len(train):,} training images, none held out"
        if validation:
            faults += leaks("training", train, "validation", validation)
            parts |= {"training": train, "validation": validation}
            more = f"{len(validation):,} more{'' if data.group is None else ', of whole specimens,'}"
            held_out = f"{len(train):,} training images, {more} held out for validation by seed {seed}"
    return Dataset(
        name,
        given.class_names,
        train,
        validation,
        given.test,
        f"{held_out}; {given.note}",
        given.fingerprint,
        given.test_fingerprint,
        given.unreadable,
        (*faults, *empty_classes(parts, given.class_names)),
        given.scenes,
    )


def _check_keys(data: DataConfig) -> None:
    """Check that no key is given that means something to other sources alone."""
    users: dict[str, list[str]] = {}
    for each in SOURCES.values():
        for key in each.keys:
            users.setdefault(key, []).append(each.name)
    for key, names in users.items():
        received, usual = getattr(data, key), DataConfig.model_fields[key].default
        if data.name not in names and received != usual:
            accepted = f"{'null' if usual is None else usual} with data.name = {data.name}, others with"
            refuse(f"data.{key}", quoted(received), f"{accepted} {' or '.join(names)}")


def _check_part(name: str, part: str, split: Split, classes: int) -> None:
    if not len(split):
        raise InputError(f"data set {name}: has no {part} images")
    wrong = np.flatnonzero((split.labels < 0) | (split.labels >= classes))
    if wrong.size:
        raise InputError(
            f"data set {name}: {part} image {wrong[0]} has the label {split.labels[wrong[0]]}; "
            f"accepted: 0 to {classes - 1}"
        )
