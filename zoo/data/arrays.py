"""Data sets that are arrays: scikit-learn's bundled digits, and .npz files."""

from pathlib import Path

import numpy as np

from zoo.archives import array_names, read_arrays
from zoo.classes import class_list
from zoo.config.data import DataConfig
from zoo.config.sources import SOURCES
from zoo.data.faults import Fault, fault
from zoo.data.form import ImageForm
from zoo.data.splits import Fingerprint, RecordedSplit, Records, SourceData, check_classes, pixel_digest
from zoo.errors import InputError, listing, quoted, refuse
from zoo.pictures import to_channels

_KEYS = ("x_train", "y_train", "x_test", "y_test")


def read_digits(data: DataConfig, form: ImageForm, num_classes: int) -> SourceData:
    """Scikit-learn's 1,797 handwritten digits: (N, 8, 8, 1) uint8, grey levels 0 to 16 as 0 to 255.

    A fifth of each class is for testing, whatever the seed.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    parts = train_test_split(images, digits.target, test_size=0.2, stratify=digits.target, random_state=0)
    x_train, x_test, y_train, y_test = parts
    class_names = tuple(str(name) for name in digits.target_names)
    check_classes(data.name, class_names, num_classes)
    return _source("data set digits", form, class_names, (x_train, y_train), (x_test, y_test))


def read_npz(data: DataConfig, form: ImageForm, num_classes: int) -> SourceData:
    """An .npz file with x_train, y_train, x_test, y_test, and optionally class_names.

    Images are (N, H, W) or (N, H, W, C), uint8, uint16 or float (read as float32); labels are (N,) or (N, 1) whole
    numbers from 0. Without class_names there are `num_classes` of them, named by their numbers. Other arrays are
    reported as a fault.
    """
    path = data.given_dir()
    arrays, unused = _read_arrays(path)
    names = arrays["class_names"] if "class_names" in arrays else np.arange(num_classes)
    class_names = class_list((_as_text(name) for name in names.ravel().tolist()), f"{path}: class_names")
    splits = []
    for part in ("train", "test"):
        images = _images(arrays[f"x_{part}"], f"{path}: x_{part}")
        labels = _labels(arrays[f"y_{part}"], f"{path}: y_{part}", len(class_names))
        if len(images) != len(labels):
            raise InputError(f"{path}: x_{part} holds {len(images)} images, but y_{part} {len(labels)} labels")
        splits.append((images, labels))
    train, test = splits
    if train[0].dtype != test[0].dtype:
        raise InputError(
            f"{path}: x_train is {train[0].dtype}, but x_test {test[0].dtype}; accepted: one type for both"
        )
    faults = fault("left out", "arrays", f"are not used, being none of {', '.join(_KEYS)}", unused)
    check_classes(data.name, class_names, num_classes)
    return _source(str(path), form, class_names, train, test, tuple(faults))


def _source(
    name: str,
    form: ImageForm,
    class_names: tuple[str, ...],
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    faults: tuple[Fault, ...] = (),
) -> SourceData:
    fingerprint, test_fingerprint = Fingerprint(class_names), Fingerprint(class_names)
    test_fingerprint.add(*test)
    for part in (train, test):
        fingerprint.add(*part)
    return SourceData(
        class_names,
        _split("train", *train, form, name),
        _split("test", *test, form, name),
        fingerprint.hexdigest(),
        test_fingerprint.hexdigest(),
        faults=faults,
    )


def _split(part: str, images: np.ndarray, labels: np.ndarray, form: ImageForm, name: str) -> RecordedSplit:
    records = Records(
        np.array([f"x_{part}[{index}]" for index in range(len(images))], object),
        np.fromiter(map(pixel_digest, images), np.uint64, len(images)),
        np.full((len(images), 2), images.shape[1:3]),
    )
    fitted = _fitted(to_channels(images, form.channels, name), form)
    return RecordedSplit(fitted, labels.astype(np.int32), records)


def _fitted(images: np.ndarray, form: ImageForm) -> np.ndarray:
    if images.shape[1:3] == form.size or not len(images):
        return images
    return np.stack([form.fit(image) for image in images])


def _read_arrays(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays that are used, and the names of the others."""
    if not path.is_file():
        refuse("data.dir", f"{quoted(str(path))}; no such file", SOURCES["npz"].dir)
    there = array_names(path, str(path))
    if missing := [key for key in _KEYS if key not in there]:
        raise InputError(
            f"{path}: has no {', '.join(missing)}, but {listing(there) or 'nothing'}; "
            f"accepted: {', '.join(_KEYS)}, and optionally class_names"
        )
    used = (*_KEYS, "class_names")
    return read_arrays(path, str(path), used), [key for key in there if key not in used]


def _as_text(name: object) -> str:
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)


def _images(images: np.ndarray, name: str) -> np.ndarray:
    if images.ndim not in (3, 4):
        refuse(name, f"shape {images.shape}", "(N, H, W) or (N, H, W, C)")
    if 0 in images.shape[1:]:
        refuse(name, f"shape {images.shape}", "images of at least one pixel")
    if images.dtype not in (np.uint8, np.uint16) and images.dtype.kind != "f":
        refuse(name, str(images.dtype), "uint8, uint16 or float")
    if images.dtype.kind == "f":
        with np.errstate(over="ignore"):
            images = images.astype(np.float32)
        if not np.isfinite(images).all():
            first = np.argwhere(~np.isfinite(images))[0, 0]
            raise InputError(f"{name}: image {first} has a pixel that is not finite in float32")
    return images if images.ndim == 4 else images[..., None]


def _labels(labels: np.ndarray, name: str, num_classes: int) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        refuse(name, f"shape {labels.shape}", "(N,) or (N, 1)")
    if labels.dtype.kind not in "iu":
        refuse(name, str(labels.dtype), f"whole numbers from 0 to {num_classes - 1}")
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        refuse(name, f"{labels.min()} to {labels.max()}", f"0 to {num_classes - 1}")
    return labels
