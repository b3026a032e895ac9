"""Labels of the images of a folder: a file of all of them, or a folder with a file for each."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.classes import class_list, normal
from zoo.data.faults import Fault, fault
from zoo.data.labels.lists import read_list
from zoo.data.labels.masks import CLASSES, read_classes, read_mask
from zoo.data.labels.matching import Names
from zoo.data.labels.voc import read_voc
from zoo.data.labels.written import Written
from zoo.errors import InputError, listing, quoted, refuse
from zoo.pictures import is_picture
from zoo.pictures.folders import OF_SYSTEMS
from zoo.progress import track

_LISTS = (".csv", ".json", ".geojson")
_ACCEPTED = (
    f"a file ({', '.join(_LISTS)}), or a folder with a file for each image ({', '.join(_LISTS)}, .xml or a mask)"
)
# The class of objects whose files name none.
_ONLY = "object"


@dataclass(frozen=True)
class Labels:
    """The labels of images.

    `of_images`: by the images' paths below their folder; those that no file says anything of are not there.
    `class_names`: the names of all objects' classes, sorted. `faults`: labels of images that are not there, and files
    that are left out.
    """

    of_images: dict[str, Written]
    class_names: tuple[str, ...]
    faults: tuple[Fault, ...]


def read_labels(path: Path, folder: Path, images: Sequence[str]) -> Labels:
    """Read the labels of some images.

    A folder's files are named as the images are; an image there is a mask, unless the folder is that of the images.
    Objects of which no file says a class are all of the class "object".

    Args:
        path: `data.labels`.
        folder: `data.dir`.
        images: the images' paths below `folder`, with / between folders.

    Raises:
        InputError: where the labels cannot be read, none of them is of these images, two files are of one image, or
            some objects have a class and others none.
    """
    names = Names(images)
    if path.is_dir():
        written, faults = _read_folder(path, folder, names)
    elif path.suffix.lower() in _LISTS:
        said = read_list(path)
        if "" in said and len(images) != 1:
            if not len(said[""]):
                refuse(f"labels {path}", "no object", "at least one, with the image that it is in")
            accepted = f"one for each, as data.dir has {len(images):,} images"
            refuse(f"labels {path}", "no image of any object", accepted)
        written, faults = _of_images(said if "" not in said else {images[0]: said[""]}, names, path)
    else:
        refuse("data.labels", quoted(str(path)), _ACCEPTED)
    return _named(path, written, tuple(faults))


def _read_folder(path: Path, folder: Path, names: Names) -> tuple[dict[str, Written], list[Fault]]:
    """The labels of a folder's files."""
    of_images: dict[str, list[Path]] = defaultdict(list)
    ending, unknown = [], []
    for file in _files(path, folder):
        name = file.relative_to(path).as_posix()
        is_mask = file.suffix.lower() not in (*_LISTS, ".xml")
        if is_mask and not is_picture(file):
            ending.append(name)
        elif (image := names.find(name)) is None:
            unknown.append(name)
        else:
            of_images[image].append(file)
    for image, files in of_images.items():
        if len(files) > 1:
            raise InputError(
                f"data.labels: image {image} has {len(files)} files ({listing([each.name for each in files], 3)}); "
                "accepted: one"
            )
    if not of_images:
        received = f"{quoted(str(path))}, in which no file is named as an image of data.dir is"
        refuse("data.labels", received, _ACCEPTED)
    classes = read_classes(path / CLASSES) if (path / CLASSES).is_file() else None
    written: dict[str, Written] = {}
    values: set[int] = set()
    for image, (file,) in track(sorted(of_images.items()), "reading labels"):
        if file.suffix.lower() in _LISTS:
            written[image] = _only(file, read_list(file), names, image)
        elif file.suffix.lower() == ".xml":
            written[image] = read_voc(file)
        else:
            written[image], there = read_mask(file, classes)
            values |= there
    if classes is None and len(values) > 1:
        received = f"masks with the values {listing([*map(str, sorted(values))])}"
        accepted = (
            f"one value beside 0, or {CLASSES} beside the masks, with a row value,class for each value, or *,class "
            "where values number the objects"
        )
        refuse("data.labels", received, accepted)
    endings = f"are left out for an ending other than {', '.join(_LISTS)}, .xml and those of images"
    return written, [
        *fault("left out", "label files", endings, ending),
        *fault("left out", "label files", "are left out, being of images that are not there", unknown),
    ]


def _files(path: Path, folder: Path) -> list[Path]:
    """The files below a folder of labels, in the order of names, that may be some."""
    own = path.resolve() == folder.resolve()
    found: list[Path] = []
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        raise InputError(f"folder {path}: cannot be read ({error.strerror})") from None
    for each in entries:
        if each.name.startswith(".") or each.name.lower() in OF_SYSTEMS or each == path / CLASSES:
            continue
        if each.is_dir() and not is_picture(each):
            found += [] if each.resolve() == folder.resolve() else _files(each, folder)
        elif not own or each.suffix.lower() in (*_LISTS, ".xml"):
            found.append(each)
    return found


def _only(file: Path, said: dict[str, Written], names: Names, image: str) -> Written:
    """What a file says that is named as one image is; where it names images, it has to be that one."""
    if [*said] == [""]:
        return said[""]
    others = [name for name in said if names.find(name) != image]
    if others:
        refuse(f"labels {file}", f"objects of {listing(others, 3)}", f"those of {image}, as the file is named")
    (only,) = said.values()
    return only


def _of_images(said: dict[str, Written], names: Names, path: Path) -> tuple[dict[str, Written], list[Fault]]:
    """What a file says of the images that are there, and a fault about the others."""
    written: dict[str, Written] = {}
    unknown: list[str] = []
    first: dict[str, str] = {}
    for name, its in said.items():
        image = names.find(name)
        if image is None:
            unknown.append(name)
            continue
        if image in written:
            refuse(f"labels {path}", f"{quoted(first[image])} and {quoted(name)} for {image}", "one name for an image")
        written[image], first[image] = its, name
    if said and not written:
        refuse("data.labels", f"labels of {listing(unknown, 3)}", "those of images in data.dir")
    return written, fault("left out", "images", "are not there, and their labels left out", unknown, len(said))


def _named(path: Path, written: dict[str, Written], faults: tuple[Fault, ...]) -> Labels:
    """The labels with a class for every object."""
    missing = [image for image, its in written.items() if "" in its.names]
    if missing and any(name for its in written.values() for name in its.names):
        refuse("data.labels", f"objects without a class ({listing(missing, 3)}), others have one", "a class for each")
    if missing:
        verb = f"have labels without a class, whose objects are of the class {_ONLY!r}"
        faults = (*faults, *fault("note", "images", verb, missing, len(written)))
        written = {image: replace(its, names=(_ONLY,) * len(its)) for image, its in written.items()}
    else:
        written = {
            image: replace(its, names=tuple(normal(each) for each in its.names)) for image, its in written.items()
        }
    found = sorted({name for its in written.values() for name in its.names})
    return Labels(written, class_list(found, f"labels {path}"), faults)
