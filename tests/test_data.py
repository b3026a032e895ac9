import hashlib
import subprocess
import sys

import numpy as np
import pytest
from data_sets import config, image_folder, npz, one_line, random_image, rows, write_images, write_npz
from PIL import Image

from zoo.config.data import DataConfig
from zoo.config.sources import SOURCES, TFDS
from zoo.data import Split, load, reader
from zoo.data.splits import Subset, hold_out
from zoo.errors import InputError


@pytest.mark.parametrize("source", [*SOURCES.values(), TFDS], ids=lambda source: source.name)
def test_every_source_has_its_reader_and_keys_of_the_schema(source):
    assert callable(reader(source))
    assert {*source.keys} <= {*DataConfig.model_fields} - {"name", "dir", "validation", "resize"}


@pytest.mark.parametrize(
    "key, value, usual", [("test", 0.5, "0.2"), ("group", "a", "null"), ("unreadable", "skip", "refuse")]
)
@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if not source.keys] + ["mnist"])
def test_a_key_that_means_nothing_to_a_source_is_refused_before_anything_is_read(tmp_path, name, key, value, usual):
    folder = {} if name == "digits" else {"dir": tmp_path / "gone"}
    with pytest.raises(InputError) as raised:
        load(config(name, **folder, **{key: value}))
    line = one_line(raised)
    assert line.startswith(f"data.{key}: received {value!r}; accepted: {usual} with data.name = {name}, others with")
    assert line.endswith("image_folder or scenes")


def test_digits():
    data = load(config("digits", validation=0.1))
    assert data.train.images.shape == (1293, 8, 8, 1) and data.train.images.dtype == np.uint8
    assert (len(data.train), len(data.validation), len(data.test)) == (1293, 144, 360)
    assert data.class_names == tuple("0123456789") and data.test.labels.dtype == np.int32
    assert data.test.images.max() == 255 and data.test.images.min() == 0
    assert set(np.bincount(data.test.labels)) <= {35, 36, 37}
    assert data.protocol == "1,293 training images, 144 more held out for validation by seed 0; test split used once"


def test_test_split_does_not_depend_on_the_seed_and_validation_does():
    first, second = (load(config("digits", seed=seed)) for seed in (0, 1))
    np.testing.assert_array_equal(first.test.images, second.test.images)
    assert first.fingerprint == second.fingerprint
    assert rows(first.validation) != rows(second.validation)
    assert load(config("digits", validation=0)).validation is None


@pytest.mark.parametrize("validation, held_out", [(0.25, 15), (7, 7), (1, 1), (59, 59), (0.001, 1)])
def test_hold_out_is_disjoint_complete_and_stratified(validation, held_out):
    labels = np.array([0] * 40 + [1] * 12 + [2] * 8, np.int32)
    everything = Split(np.arange(60).reshape(60, 1, 1, 1), labels)
    train, kept = hold_out(everything, validation, seed=3)
    assert len(kept) == held_out
    assert sorted([*train.images.ravel(), *kept.images.ravel()]) == list(range(60))
    for split in (train, kept):
        np.testing.assert_array_equal(split.labels, labels[split.images.ravel()])
    assert (abs(np.bincount(kept.labels, minlength=3) - held_out * np.array([40, 12, 8]) / 60) <= 1).all()
    again = hold_out(everything, validation, seed=3)[1]
    np.testing.assert_array_equal(again.images, kept.images)


def test_too_many_validation_images():
    with pytest.raises(InputError) as raised:
        load(config("digits", validation=1437))
    assert one_line(raised) == "data.validation: received 1437; accepted: fewer than 1,437 images"


def test_a_part_of_large_images_is_a_view():
    images = random_image(9, 2, 3, 1)
    part = Subset(images, np.array([8, 1, 4]))
    assert part.shape == (3, 2, 3, 1) and len(part) == 3 and part.dtype == np.uint8
    np.testing.assert_array_equal(part[np.array([2, 0])], images[[4, 8]])
    np.testing.assert_array_equal(part[1:], images[[1, 4]])


@pytest.mark.parametrize("dtype, read", [(np.uint8, np.uint8), (np.uint16, np.uint16), (np.float64, np.float32)])
def test_npz_keeps_values(tmp_path, dtype, read):
    images = random_image(20, 6, 5, 3, dtype=np.uint16).astype(dtype)
    data = load(npz(write_npz(tmp_path / "a.npz", x_train=images, x_test=images[:8]), channels=3))
    assert data.train.images.dtype == read and data.train.labels.shape == (20,)
    np.testing.assert_array_equal(data.train.images, images)
    assert data.class_names == ("0", "1") and data.protocol.startswith("20 training images, none held out; test")


def test_npz_class_names(tmp_path):
    path = write_npz(tmp_path / "a.npz", class_names=np.array(["cat", "dog"]))
    assert load(npz(path)).class_names == ("cat", "dog")


def test_npz_is_cropped_and_padded_with_the_value_that_preprocessing_maps_to_zero(tmp_path):
    data = load(npz(write_npz(tmp_path / "a.npz"), size=(4, 8), mean=(100.4,)))
    assert data.test.images.shape == (8, 4, 8, 1)
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(data.test.images[:, :, 1:6, 0], file["x_test"][:, 1:5])
    assert (data.test.images[:, :, [0, 6, 7]] == 100).all()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"y_test": None}, "has no y_test, but x_train, y_train, x_test; accepted: x_train, y_train, x_test, y_test"),
        ({"x_train": np.zeros((20, 30), np.uint8)}, "x_train: received shape (20, 30); accepted: (N, H, W) or"),
        ({"x_test": np.zeros((7, 6, 5), np.uint8)}, "x_test holds 7 images, but y_test 8 labels"),
        ({"y_test": np.arange(8)}, "y_test: received 0 to 7; accepted: 0 to 1"),
        ({"y_test": np.arange(8) % 2 - 1}, "y_test: received -1 to 0; accepted: 0 to 1"),
        ({"y_test": np.zeros(8)}, "y_test: received float64; accepted: whole numbers from 0 to 1"),
        ({"y_test": np.zeros((8, 2), int)}, "y_test: received shape (8, 2); accepted: (N,) or (N, 1)"),
        ({"x_test": np.full((8, 6, 5), np.nan)}, "x_test: image 0 has a pixel that is not finite"),
        ({"x_test": np.full((8, 6, 5), 1e39)}, "x_test: image 0 has a pixel that is not finite in float32"),
        ({"x_test": np.zeros((8, 6, 5), int)}, "x_test: received int64; accepted: uint8, uint16 or float"),
        ({"x_test": np.zeros((8, 6, 5), np.uint16)}, "x_train is uint8, but x_test uint16"),
        ({"x_test": np.zeros((0, 6, 5), np.uint8), "y_test": np.zeros(0, int)}, "has no test images"),
        ({"x_test": np.array([None] * 8)}, "not a readable .npz file (Object arrays cannot be loaded"),
        ({"class_names": np.array(list("abc"))}, "model.num_classes: received 2; data set npz has 3 classes"),
        ({"x_train": random_image(20, 6, 5, 3)}, "received 3 channels in colour; accepted: 1 (model.channels)"),
    ],
)
def test_npz_errors(tmp_path, changes, message):
    path = write_npz(tmp_path / "a.npz", **changes)
    with pytest.raises(InputError) as raised:
        load(npz(path))
    assert message in one_line(raised)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken", b"\x93NUMPY\x01\x00"])
def test_npz_unreadable(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable .npz file"):
        load(npz(path))


def test_npz_missing_or_no_archive(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load(npz(tmp_path / "none.npz"))
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(InputError, match="not a readable .npz file"):
        load(npz(tmp_path / "a.npy"))


def test_fingerprint_changes_with_one_pixel_label_or_name(tmp_path):
    x_test = random_image(8, 6, 5, seed=2)
    pixel = x_test.copy()
    pixel[7, 5, 4] ^= 1
    changes = [{}, {"x_test": pixel}, {"y_test": np.ones(8, int)}, {"class_names": np.array(["a", "b"])}]
    digests = [load(npz(write_npz(tmp_path / "a.npz", **change))).fingerprint for change in changes]
    assert len(set(digests)) == 4 and all(len(digest) == 64 for digest in digests)
    assert load(npz(write_npz(tmp_path / "b.npz"), size=(9, 9), channels=3)).fingerprint == digests[0]


def test_fingerprint_of_the_test_split_knows_nothing_of_the_training_images(tmp_path):
    pixel = np.zeros((8, 3, 4), np.uint8)
    pixel[7, 2, 3] = 1
    changes = [{}, {"x_train": np.zeros((20, 6, 5), np.uint8)}, {"x_test": pixel}, {"y_test": np.ones(8, int)}]
    same, moved, *others = [load(npz(write_npz(tmp_path / "a.npz", **change))) for change in changes]
    assert same.test_fingerprint == moved.test_fingerprint and same.fingerprint != moved.fingerprint
    assert len({same.test_fingerprint, *(other.test_fingerprint for other in others)}) == 3

    root = tmp_path / "set"
    for part in ("train", "test"):
        write_images(root / part, count=5)
    before = load(image_folder(root))
    (root / "train" / "cat" / "000.png").unlink()
    after = load(image_folder(root))
    assert before.test_fingerprint == after.test_fingerprint and before.fingerprint != after.fingerprint
    (root / "test" / "cat" / "000.png").rename(root / "test" / "dog" / "cat.png")
    assert load(image_folder(root)).test_fingerprint != before.test_fingerprint


def write_bitmaps(root, count, seed):
    """Files of the same bytes whatever the version of a library that writes them."""
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = random_image(6, 5, 3, seed=1000 * seed + 100 * label + index)
            Image.fromarray(pixels).save(root / name / f"{index}.bmp")
    return root


def test_fingerprints_and_splits_are_those_of_version_1(tmp_path):
    write_bitmaps(tmp_path / "flat", 12, 0)
    write_bitmaps(tmp_path / "parts" / "train", 6, 1)
    write_bitmaps(tmp_path / "parts" / "test", 4, 2)
    sets = [image_folder(tmp_path / "flat"), image_folder(tmp_path / "parts"), npz(write_npz(tmp_path / "a.npz"))]
    found = [load(each) for each in [*sets, config("digits")]]
    assert [(each.fingerprint[:16], each.test_fingerprint[:16]) for each in found] == [
        ("4d94ca6831ae8078", "8c992e1ee3376814"),
        ("def01a8c479d0a30", "1838fdc988f76555"),
        ("b669be60dd058153", "57777e804383891d"),
        ("da54086d4bf6cf63", "60736c063d1138e2"),
    ]
    train = [hashlib.sha256(each.train.images.tobytes()).hexdigest()[:12] for each in found]
    assert train == ["39dd7c5b60d9", "56e26f24c070", "d56fad378791", "1883a524b15a"]


def test_importing_data_is_light():
    code = (
        "import sys, zoo.data; heavy = {'tensorflow', 'keras', 'tensorflow_datasets', 'sklearn', 'tifffile', 'PIL', "
        "'imagecodecs', 'rich'}; sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_digits_need_no_tensorflow():
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from zoo.config import load_config; from zoo.data import load\n"
        "print(len(load(load_config('nin_digits')).test))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "360\n", done.stderr
