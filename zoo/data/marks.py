"""Marks: places of training images of which a user says what is there, or that nothing is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from zoo.classes import normal
from zoo.data.faults import Fault, fault
from zoo.data.labels import Names
from zoo.data.labels.lists import read_list
from zoo.errors import InputError, listing, quoted, refuse, unknown
from zoo.objects.corrections import corrected, usual_sizes
from zoo.objects.marked import Scenes

_ACCEPTED = "a .csv file with a row image,x,y,class for each mark"


@dataclass(frozen=True)
class Marks:
    """The marks of an image, in the order of their rows.

    `places`: (n, 2), y and x in continuous pixels of the given image. `classes`: (n,), the index of each one's class,
    that of the background where nothing is.
    """

    places: np.ndarray
    classes: np.ndarray

    def with_more(self, others: "Marks") -> "Marks":
        """These marks, and then others."""
        places = np.concatenate([self.places, others.places])
        return Marks(places, np.concatenate([self.classes, others.classes]))

    def __len__(self) -> int:
        """How many."""
        return len(self.classes)


def read_marks(path: Path, images: Sequence[str], class_names: Sequence[str], background: str) -> dict[str, Marks]:
    """Read `data.marks`: the marks of each image that has some.

    Coordinates are read as those of points (see `zoo.data.labels.lists.read_list`); an empty class is the background.

    Args:
        path: a .csv file.
        images: the images' paths below `data.dir`.
        class_names: all classes.
        background: which of them stands for nothing.

    Raises:
        InputError: where the file cannot be read, has no mark, or one without an image of `data.dir`, of an unknown
            class or that is no point.
    """
    name = f"data.marks: {path}"
    if path.suffix.lower() != ".csv":
        refuse("data.marks", quoted(str(path)), _ACCEPTED)
    names, marks, missing = Names(images), dict[str, Marks](), []
    for given, written in read_list(path).items():
        if not len(written) or not given:
            refuse(name, "marks without an image" if len(written) else "no mark", _ACCEPTED)
        if not written.are_points.all():
            refuse(name, f"boxes in {given}", _ACCEPTED)
        image = names.find(given)
        if image is None:
            missing.append(given)
            continue
        found = [normal(each) or background for each in written.names]
        for each in found:
            if each not in class_names:
                raise InputError(f"{name}: {unknown('class', each, class_names)}")
        own = Marks(written.boxes[:, :2], np.array([class_names.index(each) for each in found], int))
        marks[image] = marks[image].with_more(own) if image in marks else own
    if missing:
        refuse(name, f"{len(missing):,} images that are not in data.dir ({listing(missing, 3)})", "those of data.dir")
    return marks


def correct(scenes: Scenes, marks: Mapping[str, Marks]) -> tuple[Scenes, list[Fault]]:
    """The same images with what marks make of them, and faults about marks that cannot be used.

    Raises:
        InputError: for marks on images that are held out, or where no object of the training images says how large one
            is.
    """
    if not marks:
        return scenes, []
    if held_out := [scene.name for scene in (*scenes.validation, *scenes.test) if scene.name in marks]:
        received = f"marks on {len(held_out):,} images held out for validation or testing ({listing(held_out, 3)})"
        refuse("data.marks", received, "marks on training images, as a model is trained on what is marked")
    sizes, outside, train = usual_sizes(scenes), [], []
    nothing = Marks(np.zeros((0, 2)), np.zeros(0, int))
    if not sizes.all():
        received = "marks, where no training image has a labelled object"
        refuse("data.marks", received, "at least one, which says how large objects are")
    for scene in scenes.train:
        own = marks.get(scene.name, nothing)
        is_inside = np.all((own.places >= 0) & (own.places <= scene.image_size), axis=1)
        outside += [f"{scene.name} at ({x:g}, {y:g})" for y, x in own.places[~is_inside]]
        train.append(corrected(scene, own.places[is_inside], own.classes[is_inside], scenes, sizes))
    total = sum(map(len, marks.values()))
    alone = [scene.name for scene in train if not scene.is_labelled]
    return replace(scenes, train=tuple(train)), [
        *fault("left out", "marks", "are left out, lying outside the image", outside, total),
        *fault("note", "images", "are trained on at marks alone, having no labels", alone, len(train)),
    ]


def sentence(scenes: Scenes) -> str:
    """How many marks there are, for the protocol; empty where there are none."""
    marked = scenes.marked
    if not marked:
        return ""
    alone = sum(not scene.is_labelled for scene in marked)
    without = f", {alone:,} of them without labels" if alone else ""
    count = sum(len(each.marks) for each in marked)
    numbers = f"{count:,} mark{'s' * (count > 1)} on {len(marked):,} training image{'s' * (len(marked) > 1)}"
    return f"; {numbers}{without}"
