"""Scenes: large images with labelled objects, as they are and as crops."""

import hashlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from zoo.card import Target
from zoo.classes import normal
from zoo.config.data import DataConfig
from zoo.data.class_folders import check_specimens, specimen_of
from zoo.data.crops import crops_of
from zoo.data.faults import Fault, fault, noted, unreadable_fault
from zoo.data.form import ImageForm
from zoo.data.labels import Written, read_labels
from zoo.data.marks import Marks, correct, read_marks, sentence
from zoo.data.scene_files import SceneFile, image_names, open_files
from zoo.data.scene_splits import PARTS, draw_split, read_split
from zoo.data.splits import SourceData, check_classes
from zoo.errors import InputError, listing, quoted, refuse, unknown
from zoo.objects.marked import Objects, Scene, Scenes

_BACKGROUND = "background"
# Why an object is left out.
_EMPTY, _CROWD, _OUTSIDE, _TWICE = (
    f"are left out, {why}"
    for why in ("being empty", "being crowds, several in one", "centred outside the image", "being listed twice")
)
_CONTRADICTED = "have the place of one of another class"
_Size = tuple[int, int]


@dataclass(frozen=True)
class LabelledImages:
    """Labelled images of a folder, in the order of their content's hashes, before they are divided.

    `class_names`: those of the objects, sorted, and the background's, if there is one. `digests`: the SHA-256 of each
    image's content, by its name. `unreadable`: the images that were left out because they cannot be decoded.
    """

    scenes: tuple[Scene, ...]
    class_names: tuple[str, ...]
    background: str | None
    digests: Mapping[str, str]
    faults: tuple[Fault, ...]
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Listed:
    """Images with what their labels say, before one is opened.

    `names`: those that are used; `unlabelled`: those that are left out, having no labels. `known`: what labels say.
    `marks`: what a user corrected. `alone`: the images that are known at these alone; `added`: those of them that are
    used for their marks.
    """

    names: tuple[str, ...]
    unlabelled: tuple[str, ...]
    known: Mapping[str, Written]
    marks: Mapping[str, Marks]
    alone: frozenset[str]
    added: frozenset[str]
    class_names: tuple[str, ...]
    background: str | None
    faults: tuple[Fault, ...]


def read_scenes(data: DataConfig, form: ImageForm, num_classes: int) -> SourceData:
    """Read labelled images, divide them, and cut crops of them: one about each object, and as many of background.

    Whole images, or specimens with `data.group`, are for training, validation or testing: as `data.split` says, or by
    hashes (see `zoo.data.scene_splits.draw_split`), so that neither the test nor the validation depends on a seed. An
    image without labels that has marks is for training, and changes no other one's part.

    Raises:
        InputError: see `labelled_images`; for objects none of which fits the model's window, a division that leaves a
            part without an image, and marks that cannot be used (see `zoo.data.marks`).
    """
    if data.resize:
        refuse("data.resize", "true", "false with data.name = scenes, whose images are brought to data.scale")
    if data.split is not None and data.test != (usual := DataConfig.model_fields["test"].default):
        refuse("data.test", f"{data.test:g}", f"none (or {usual:g}, which is not used) beside data.split")
    listed = _listed(data, target=form.target)
    check_classes(data.name, listed.class_names, num_classes)
    specimens = _specimens(data, listed.names)
    given = None
    if data.split is not None:
        own = [name for name in listed.names if name not in listed.added]
        given = read_split(data.split, own, [*listed.unlabelled, *listed.added], bool(data.validation))
    found = _opened(data, listed, form.channels, form.size)
    _check_sizes(found.scenes, data, form.size)
    parts, note = _divide(data, found, listed.added, specimens, given)
    pairs = list(zip(found.scenes, parts, strict=True))
    divided = {part: tuple(scene for scene, of in pairs if of == part) for part in PARTS}
    scenes, faults = correct(_scenes_of(found, data, form, **divided), listed.marks)
    all_parts = {part: getattr(scenes, part) for part in PARTS}
    crops = {
        part: crops_of(each, scenes, found.digests, specimens, form.size) for part, each in all_parts.items() if each
    }
    now = {scene.name: scene for each in all_parts.values() for scene in each}
    return SourceData(
        found.class_names,
        crops["train"],
        crops["test"],
        _fingerprint(found, [now[scene.name] for scene in found.scenes], () if given is None else parts),
        _fingerprint(found, scenes.test),
        note + sentence(scenes),
        found.unreadable,
        crops.get("validation"),
        (*found.faults, *faults),
        scenes,
    )


def read_test_scenes(
    data: DataConfig, form: ImageForm, class_names: Sequence[str], pixel_size: float | None = None
) -> tuple[Scenes, tuple[Fault, ...]]:
    """Read labelled images of which all are for testing a model with these classes, and faults about them.

    Args:
        data: the data section.
        form: what the model takes.
        class_names: the model's.
        pixel_size: the model's, where it is known; see `zoo.data.scene_files.open_files`.

    Raises:
        InputError: see `labelled_images`.
    """
    found = labelled_images(data, form.channels, form.size, class_names, form.target, pixel_size)
    return _scenes_of(found, data, form, (), (), found.scenes), found.faults


def _scenes_of(
    found: LabelledImages,
    data: DataConfig,
    form: ImageForm,
    train: tuple[Scene, ...],
    validation: tuple[Scene, ...],
    test: tuple[Scene, ...],
) -> Scenes:
    tolerance = data.tolerance if any(scene.objects.are_points.any() for scene in found.scenes) else None
    return Scenes(found.class_names, found.background, train, validation, test, tolerance, form.fill)


def labelled_images(
    data: DataConfig,
    channels: int,
    window: _Size,
    class_names: Sequence[str] = (),
    target: Target = "class",
    pixel_size: float | None = None,
) -> LabelledImages:
    """Read the images of `data.dir` with their labels, at the scale that the data section asks for; nothing is divided.

    Args:
        data: the data section.
        channels: how many a model takes.
        window: (height, width) of what a model sees of an image.
        class_names: a model's, the background's among them, which the objects' have to be of; empty: those that the
            labels have.
        target: what a model is to give, see `zoo.config.recipe.TrainConfig`. Objects that are counted have no
            background beside them, and a point needs no `data.tolerance`.
        pixel_size: a model's, where it is known; see `zoo.data.scene_files.open_files`.

    Raises:
        InputError: where images or labels cannot be read, or do not go together: see `zoo.data.scene_files.open_files`
            and `zoo.data.labels.read_labels`; for images without labels, labels of an image of another size or of an
            unknown class, or points without `data.tolerance`.
    """
    return _opened(data, _listed(data, class_names, target), channels, window, pixel_size)


def _listed(data: DataConfig, class_names: Sequence[str] = (), target: Target = "class") -> _Listed:
    """List the images of `data.dir`, and read their labels."""
    if data.labels is None:
        refuse("data.labels", "null", "a .csv, .json or .geojson file, or a folder with a file for each image")
    names, faults = image_names(data.given_dir(), data.labels)
    labels = read_labels(data.labels, data.given_dir(), names)
    background, known = None if target == "count" else data.background or _BACKGROUND, labels.of_images
    classes = _class_names(background, labels.class_names, class_names)
    if data.tolerance is None and background is not None and any(its.are_points.any() for its in known.values()):
        accepted = "how far in pixels a place may lie from an object that is a point, as these are, and be its"
        refuse("data.tolerance", "null", accepted)
    # Only classifiers take marks (see `zoo.config.experiment`).
    marks = {} if data.marks is None or background is None else read_marks(data.marks, names, classes, background)
    used, more = _with_labels(data, names, {*known, *marks})
    unlabelled = tuple(name for name in names if name not in used)
    alone = frozenset(marks) - set(known)
    # Where every image without labels is used, marks add none.
    added = alone if data.unlabelled != "background" else frozenset[str]()
    faults = [*faults, *labels.faults, *more]
    return _Listed(tuple(used), unlabelled, known, marks, alone, added, classes, background, tuple(faults))


def _opened(
    data: DataConfig, listed: _Listed, channels: int, window: _Size, pixel_size: float | None = None
) -> LabelledImages:
    """Open images, and take the objects that can be used."""
    known, class_names = listed.known, listed.class_names
    files, unreadable = open_files(data, listed.names, channels, window, pixel_size)
    left_out: dict[str, list[str]] = {why: [] for why in (_EMPTY, _CROWD, _OUTSIDE, _TWICE, _CONTRADICTED)}
    scenes = tuple(_scene(file, known.get(file.name), class_names, left_out) for file in files)
    scenes = tuple(replace(scene, is_labelled=scene.name not in listed.alone) for scene in scenes)
    total = sum(len(its) for its in known.values())
    if total > 1 and all((its.boxes <= 1).all() for its in known.values()):
        refuse("data.labels", "coordinates of which none is above 1", "pixels, and no shares of the image's sides")
    if len(outside := left_out[_OUTSIDE]) > total / 2:
        received = f"{len(outside):,} of {total:,} objects outside their images ({listing(outside, 2)})"
        refuse("data.labels", received, "labels of images of this size, in their pixels")
    notes: dict[str, set[str]] = {}
    for file in files:
        for text in file.notes:
            notes.setdefault(text, set()).add(file.name)
    alone = [scene.name for scene in scenes if not len(scene.objects) and scene.name in known]
    faults = (
        *listed.faults,
        *(
            each
            for why, which in left_out.items()
            for each in fault("label" if why == _CONTRADICTED else "left out", "objects", why, which, total)
        ),
        *fault("note", "images", "have labels without an object, so background alone", alone, len(scenes)),
        *unreadable_fault(unreadable),
        *noted(notes),
    )
    digests = {file.name: file.digest for file in files}
    return LabelledImages(scenes, class_names, listed.background, digests, faults, unreadable)


def _class_names(background: str | None, found: Sequence[str], given: Sequence[str]) -> tuple[str, ...]:
    """The classes: those that are given, or those that were found and the background, if there is one."""
    if background is not None and background in found:
        accepted = "another name for what is no object (data.background)"
        refuse("data.labels", f"objects of the class {quoted(background)}", accepted)
    if not given:
        return tuple(found) if background is None else (*found, normal(background))
    if background is not None and background not in given:
        raise InputError(f"data.background: {unknown('class', background, given)}")
    for name in found:
        if name not in given:
            raise InputError(f"data.labels: {unknown('class', name, [each for each in given if each != background])}")
    return tuple(given)


def _with_labels(data: DataConfig, names: Sequence[str], known: Container[str]) -> tuple[list[str], list[Fault]]:
    """The images that are used, and a fault about those of which nothing is `known`.

    Raises:
        InputError: naming them, where they are refused.
    """
    without = [name for name in names if name not in known]
    if without and data.unlabelled == "refuse":
        received = f"{len(without):,} of {len(names):,} images without labels ({listing(without, 3)})"
        accepted = "labels of each, data.unlabelled=background, where they show no object, or data.unlabelled=skip"
        refuse("data.labels", received, accepted)
    if data.unlabelled == "skip":
        used = [name for name in names if name in known]
        return used, fault("left out", "images", "are left out, having no labels", without, len(names))
    verb = "are taken for background alone, having no labels"
    return list(names), fault("note", "images", verb, without, len(names))


def _scene(
    file: SceneFile, written: Written | None, class_names: Sequence[str], left_out: Mapping[str, list[str]]
) -> Scene:
    """An image with those of its objects that can be used; the others are named in `left_out`, by why."""
    objects = Objects.none()
    if written is not None and len(written):
        if written.image_size not in (None, file.image_size):
            _refuse_size(file, written)
        boxes = written.boxes
        centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        classes = np.array([class_names.index(name) for name in written.names], np.int32)
        is_used = np.ones(len(written), bool)
        for why, those in (
            (_CROWD, written.are_crowds),
            (_EMPTY, (sides <= 0).any(1) & ~written.are_points),
            (_OUTSIDE, ((centres < 0) | (centres > file.image_size)).any(1)),
            (_TWICE, _repeated(np.column_stack([boxes, classes]))),
            (_CONTRADICTED, _repeated(boxes)),
        ):
            indices = np.flatnonzero(those & is_used)
            left_out[why] += [_name(file.name, written.names[at], centres[at]) for at in indices]
            if why != _CONTRADICTED:
                is_used[indices] = False
        objects = Objects(centres, sides, classes).at(is_used)
    return Scene(file.name, file.pixels, objects, file.image_size, file.scale, file.pixel_size)


def _repeated(rows: np.ndarray) -> np.ndarray:
    """Which rows (n, k) are the same as one before them, (n,) bool."""
    is_first = np.zeros(len(rows), bool)
    is_first[np.unique(rows, axis=0, return_index=True)[1]] = True
    return ~is_first


def _refuse_size(file: SceneFile, written: Written) -> None:
    stated, own = (" x ".join(map(str, size or ())) for size in (written.image_size, file.image_size))
    refuse("data.labels", f"those of an image of {stated} pixels for {file.name}", f"{own}, as this image is")


def _name(image: str, class_name: str, centre: np.ndarray) -> str:
    return f"{image}: {class_name} at ({centre[1]:g}, {centre[0]:g})"


def _check_sizes(scenes: Sequence[Scene], data: DataConfig, window: _Size) -> None:
    """Check that at the images' scale at least one object fits into the window, and points leave it nowhere.

    A cell has the class of a point that is up to half the tolerance from the middle of its window.
    """
    text = f"the model's window, {window[0]} x {window[1]} (model.image_size)"
    least, smallest = np.inf, np.zeros(2)
    some_are_points = any(scene.objects.are_points.any() for scene in scenes)
    for scene in scenes:
        objects = scene.scanned_objects
        if some_are_points:
            reach = (data.tolerance or 0.0) * max(scene.scale)
            if reach > min(window):
                refuse("data.tolerance", f"{data.tolerance:g}, {reach:.4g} pixels at scale", f"up to a side of {text}")
        elif len(objects):
            shares = (objects.sides / window).max(1)
            if shares.min() < least:
                least, smallest = shares.min(), objects.sides[shares.argmin()]
    if np.isfinite(least) and least > 1:
        key, value = (
            ("data.scale", data.scale or 1) if data.pixel_size is None else ("data.pixel_size", data.pixel_size)
        )
        received = f"{value:g}, at which the smallest object has {smallest[0]:.4g} x {smallest[1]:.4g} pixels"
        refuse(key, received, f"one at which objects fit {text}")


def _specimens(data: DataConfig, names: Sequence[str]) -> dict[str, str | None]:
    """What `data.group` finds in each name; None without it."""
    found = {name: None if data.group is None else specimen_of(data.group, name) for name in names}
    check_specimens(data.group, found)
    return found


def _divide(
    data: DataConfig,
    found: LabelledImages,
    added: Container[str],
    specimens: Mapping[str, str | None],
    given: Mapping[str, str] | None,
) -> tuple[list[str], str]:
    """The part of each image, where a file does not give it, and a sentence about it.

    What is `added` is for training, unless it is of what is held out: of its specimen, or its copy.
    """
    names = [scene.name for scene in found.scenes]
    keys = {name: specimens[name] or found.digests[name] for name in names}
    divided = [name for name in names if name not in added]
    if given is None:
        drawn = draw_split(data, [found.digests[name] for name in divided], [specimens[name] for name in divided])
        given, by = dict(zip(divided, drawn, strict=True)), "content hash" if data.group is None else "specimen"
    else:
        by = "data.split"
    of_key = {keys[name]: given[name] for name in divided}
    parts = [given.get(name) or of_key.get(keys[name], "train") for name in names]
    if by == "data.split":
        for part in ("train", "test"):
            if part not in parts:
                refuse(f"data.split: {data.split}", f"no {part} image that can be read", "at least one")
    counts = ", ".join(f"{parts.count(part):,} for {part.replace('train', 'training')}" for part in PARTS)
    return parts, f"whole images chosen by {by}: {counts}"


def _fingerprint(found: LabelledImages, scenes: Sequence[Scene], parts: Sequence[str] = ()) -> str:
    """A SHA-256 of class names, images and labels, and of the parts that a file gives; independent of the scale."""
    content = hashlib.sha256(repr((found.class_names, found.background, *parts)).encode())
    for scene in scenes:
        content.update(found.digests[scene.name].encode())
        for objects in (scene.objects, scene.marks):
            for each in (objects.boxes.astype("<f8"), objects.classes.astype("<i4")):
                content.update(np.ascontiguousarray(each).tobytes())
        content.update(b"" if scene.is_labelled else b"at its marks alone")
    return content.hexdigest()
