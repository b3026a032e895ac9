import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zoo.config import Config
from zoo.data import Split, fit_image, load, make_scene, read_image
from zoo.data import folder as folder_module
from zoo.data.splits import Part, hold_out
from zoo.data.tfds import _allocate
from zoo.errors import InputError
from zoo.pictures import to_channels

MODEL = {"family": "nin", "mlpconvs": [{"kernel": 3, "filters": [4]}]}
TRAIN = {"epochs": 1, "optimizer": {"name": "sgd", "learning_rate": 0.1}}


def config(name, size=(8, 8), channels=1, classes=10, mean=(0.0,), seed=0, **data):
    preprocess = {"mean": mean}
    model = MODEL | {"num_classes": classes, "image_size": size, "channels": channels, "preprocess": preprocess}
    return Config.model_validate(
        {"name": "test", "seed": seed, "data": {"name": name, **data}, "model": model, "train": TRAIN}
    )


def random_image(*shape, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def rows(split):
    return {image.tobytes() for image in split.images[:]}


def one_line(raised):
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_digits():
    data = load(config("digits", validation=0.1))
    assert data.train.images.shape == (1293, 8, 8, 1) and data.train.images.dtype == np.uint8
    assert (len(data.train), len(data.validation), len(data.test)) == (1293, 144, 360)
    assert data.class_names == tuple("0123456789") and data.test.labels.dtype == np.int32
    assert data.test.images.max() == 255 and data.test.images.min() == 0
    assert set(np.bincount(data.test.labels)) <= {35, 36, 37}
    assert data.protocol == "144 training images held out for validation by seed 0; test split used once"


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
    part = Part(images, np.array([8, 1, 4]))
    assert part.shape == (3, 2, 3, 1) and len(part) == 3 and part.dtype == np.uint8
    np.testing.assert_array_equal(part[np.array([2, 0])], images[[4, 8]])
    np.testing.assert_array_equal(part[1:], images[[1, 4]])


def write_npz(path, **changes):
    arrays = {
        "x_train": random_image(20, 6, 5, seed=1),
        "y_train": np.arange(20) % 2,
        "x_test": random_image(8, 6, 5, seed=2),
        "y_test": np.arange(8)[:, None] % 2,
    }
    arrays |= changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def npz(path, **options):
    return config("npz", dir=path, **({"size": (6, 5), "classes": 2, "validation": 0} | options))


@pytest.mark.parametrize("dtype, read", [(np.uint8, np.uint8), (np.uint16, np.uint16), (np.float64, np.float32)])
def test_npz_keeps_values(tmp_path, dtype, read):
    images = random_image(20, 6, 5, 3, dtype=np.uint16).astype(dtype)
    data = load(npz(write_npz(tmp_path / "a.npz", x_train=images, x_test=images[:8]), channels=3))
    assert data.train.images.dtype == read and data.train.labels.shape == (20,)
    np.testing.assert_array_equal(data.train.images, images)
    assert data.class_names == ("0", "1") and data.protocol.startswith("trained on all training images; test")


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


def write_images(root, classes=("cat", "dog"), count=30, dtype=np.uint8, size=(6, 5)):
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = random_image(*size, 3, seed=1000 * number + index, dtype=dtype)
            (root / name / f"{index:03}.png").write_bytes(imagecodecs.png_encode(pixels))
    return root


def image_folder(root, **options):
    return config("image_folder", dir=root, **({"size": (6, 5), "channels": 3, "classes": 2} | options))


def test_folder_splits_by_content(tmp_path):
    root = write_images(tmp_path / "set")
    before = load(image_folder(root))
    assert len(rows(before.train) | rows(before.validation) | rows(before.test)) == 60
    assert len(before.train) + len(before.validation) + len(before.test) == 60
    assert before.class_names == ("cat", "dog") and 4 <= len(before.test) <= 20
    assert before.protocol.endswith("test images (20%) chosen by content hash, used once")

    for path in list(root.glob("*/*.png")):
        path.rename(path.with_name(f"{999 - int(path.stem)}-renamed.PNG"))
    (root / "cat" / ".hidden").write_text("")
    (root / "dog" / "notes.txt").write_text("")
    renamed = load(image_folder(root))
    assert renamed.fingerprint == before.fingerprint
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(renamed, part).images, getattr(before, part).images)
        np.testing.assert_array_equal(getattr(renamed, part).labels, getattr(before, part).labels)

    write_images(root, classes=("cat",), count=31)
    (root / "cat" / "030.png").rename(root / "cat" / "new.png")
    for path in root.glob("cat/0*.png"):
        path.unlink()
    added = load(image_folder(root))
    assert added.fingerprint != before.fingerprint
    assert rows(before.test) <= rows(added.test)
    assert rows(before.train) | rows(before.validation) <= rows(added.train) | rows(added.validation)


def test_folder_labels_belong_to_their_images(tmp_path):
    root = write_images(tmp_path, count=12)
    data = load(image_folder(root, validation=0))
    dogs = {random_image(6, 5, 3, seed=1000 + index).tobytes() for index in range(12)}
    for split in (data.train, data.test):
        np.testing.assert_array_equal([image.tobytes() in dogs for image in split.images], split.labels == 1)


def test_folder_with_train_and_test(tmp_path):
    write_images(tmp_path / "train", count=9)
    write_images(tmp_path / "test", count=4)
    data = load(image_folder(tmp_path, validation=2))
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 2, 8)
    assert data.protocol == "2 training images held out for validation by seed 0; test split used once"


def test_folder_of_16_bit_images(tmp_path):
    root = write_images(tmp_path, count=8, dtype=np.uint16)
    data = load(image_folder(root, validation=0, test=0.5))
    assert data.train.images.dtype == np.uint16
    written = {random_image(6, 5, 3, seed=1000 * k + i, dtype=np.uint16).tobytes() for k in (0, 1) for i in range(8)}
    assert rows(data.train) | rows(data.test) == written


def test_folder_on_demand_gives_what_memory_holds(tmp_path, monkeypatch):
    root = write_images(tmp_path, count=30, size=(7, 4))
    options = {"mean": (10, 20, 30.6), "size": (6, 6)}
    held = load(image_folder(root, **options))
    monkeypatch.setattr(folder_module, "IN_MEMORY", 0)
    lazy = load(image_folder(root, **options))
    assert not isinstance(lazy.test.images, np.ndarray) and isinstance(held.test.images, np.ndarray)
    for part in ("train", "validation", "test"):
        one, other = getattr(held, part).images, getattr(lazy, part).images
        assert one.shape == other.shape and one.dtype == other.dtype
        order = np.arange(len(one))[::-1]
        np.testing.assert_array_equal(one[order], other[order])
        np.testing.assert_array_equal(one[1:3], other[1:3])
    np.testing.assert_array_equal(held.test.images[0, 0, 0], [10, 20, 31])


def break_folder(root, what):
    cat = root / "cat"
    if what == "empty class":
        (root / "eel").mkdir()
    elif what == "other files":
        shutil.rmtree(root / "dog")
        (root / "dog").mkdir()
        (root / "dog" / "a.txt").write_text("")
        (root / "dog" / "b.gif").write_text("")
    elif what == "no folders":
        shutil.rmtree(root)
        root.mkdir()
    elif what == "truncated":
        content = (cat / "000.png").read_bytes()
        (cat / "000.png").write_bytes(content[: len(content) // 2])
    elif what == "no image":
        (cat / "000.png").write_text("hello")
    elif what == "depth":
        (cat / "deep.png").write_bytes(imagecodecs.png_encode(random_image(6, 5, 3, dtype=np.uint16)))
    elif what == "nested":
        (cat / "more").mkdir()
    elif what == "only train":
        write_images(root / "train")
    elif what == "classes differ":
        write_images(root / "train")
        write_images(root / "test", classes=("cat", "eel"))


@pytest.mark.parametrize(
    "what, classes, message",
    [
        ("empty class", 3, "eel: has no images; accepted: .png"),
        ("other files", 2, "dog: has no images (only 2 other files); accepted: .png"),
        ("no folders", 2, "has no folders; accepted: one folder a class"),
        ("truncated", 2, "000.png: broken or truncated"),
        ("no image", 2, "000.png: unknown format; accepted: PNG, JPEG, BMP, TIFF and .npy"),
        ("depth", 2, "one depth for all"),
        ("nested", 2, "more: a folder inside a class folder"),
        ("only train", 2, "has train/ but no test/"),
        ("classes differ", 2, "different classes (in one only: dog, eel)"),
        ("", 7, "model.num_classes: received 7; data set image_folder has 2 classes"),
    ],
)
def test_folder_errors(tmp_path, what, classes, message):
    root = write_images(tmp_path / "set", count=3)
    break_folder(root, what)
    with pytest.raises(InputError) as raised:
        load(image_folder(root, classes=classes))
    assert message in one_line(raised)


def spoil(root):
    """Five files that are no images any more, in five ways; the three that remain of each class stay as they are."""
    cut = (root / "cat" / "000.png").read_bytes()
    (root / "cat" / "000.png").write_bytes(cut[: len(cut) // 2])
    (root / "cat" / "001.png").write_bytes(b"")
    (root / "dog" / "000.png").write_text("hello")
    (root / "dog" / "001.png").write_bytes(cut[:60] + bytes(len(cut) - 60))
    (root / "dog" / "002.tif").write_bytes(b"II*\0 broken")
    return {"cat/000.png", "cat/001.png", "dog/000.png", "dog/001.png", "dog/002.tif"}


@pytest.mark.parametrize("in_memory", [True, False])
def test_folder_without_what_cannot_be_read_is_the_folder_without_those_files(tmp_path, monkeypatch, in_memory):
    root = write_images(tmp_path / "set", count=12)
    names = spoil(root)
    if not in_memory:
        monkeypatch.setattr(folder_module, "IN_MEMORY", 0)
    skipped = load(image_folder(root, unreadable="skip"))
    assert skipped.unreadable == tuple(sorted(names))
    for name in names:
        (root / name).unlink()
    removed = load(image_folder(root))
    assert removed.unreadable == () and removed.fingerprint == skipped.fingerprint
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(skipped, part).images[:], getattr(removed, part).images[:])
        np.testing.assert_array_equal(getattr(skipped, part).labels, getattr(removed, part).labels)


def test_folder_of_train_and_test_counts_what_it_skips_in_both(tmp_path):
    write_images(tmp_path / "train", count=9)
    write_images(tmp_path / "test", count=4)
    for name in ("train/cat/003.png", "test/dog/002.png"):
        (tmp_path / name).write_bytes(b"")
    data = load(image_folder(tmp_path, unreadable="skip", validation=0))
    assert data.unreadable == ("train/cat/003.png", "test/dog/002.png")
    assert (len(data.train), len(data.test)) == (17, 7)


def test_folder_refuses_all_that_cannot_be_read_together(tmp_path):
    root = write_images(tmp_path / "set", count=12)
    names = spoil(root)
    with pytest.raises(InputError) as raised:
        load(image_folder(root))
    text = one_line(raised)
    assert all(str(root / name) in text for name in names)
    assert "5 images in all" in text and text.endswith("data.unreadable=skip leaves out what cannot be read")


def test_folder_on_demand_names_what_it_cannot_read_when_it_is_asked_for(tmp_path, monkeypatch):
    root = write_images(tmp_path / "set", count=12)
    (root / "cat" / "004.png").write_bytes((root / "cat" / "004.png").read_bytes()[:70])
    monkeypatch.setattr(folder_module, "IN_MEMORY", 0)
    data = load(image_folder(root, validation=0))
    with pytest.raises(InputError, match="004.png: broken or truncated .*; data.unreadable=skip"):
        data.train.images[:], data.test.images[:]


def test_folder_with_a_class_of_which_nothing_can_be_read(tmp_path):
    root = write_images(tmp_path / "set", count=3)
    for path in root.glob("dog/*.png"):
        path.write_bytes(b"gone")
    with pytest.raises(InputError, match="dog: none of its images can be read .*unknown format"):
        load(image_folder(root, unreadable="skip"))


def test_folder_of_another_number_of_channels_is_no_unreadable_one(tmp_path):
    root = write_images(tmp_path / "set", count=3)
    with pytest.raises(InputError, match="received 3 channels in colour; accepted: 1"):
        load(image_folder(root, channels=1, unreadable="skip"))


def test_folder_missing(tmp_path):
    with pytest.raises(InputError, match="accepted: a folder with one folder a class"):
        load(image_folder(tmp_path / "none"))


def written(path, pixels, **options):
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, pixels, **options)
    elif pixels.dtype == np.uint16:
        path.write_bytes(imagecodecs.png_encode(pixels))
    else:
        Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3)])
@pytest.mark.parametrize(
    "name, options",
    [
        ("a.png", {}),
        ("a.npy", {}),
        ("a.tif", {}),
        ("a.tiff", {"compression": "lzw", "byteorder": ">"}),
        ("a.tif", {"compression": "zlib", "bigtiff": True, "tile": (16, 16)}),
        ("a.bmp", {}),
    ],
)
def test_lossless_round_trip(tmp_path, name, options, shape, dtype):
    if name == "a.bmp" and dtype == np.uint16:
        pytest.skip("BMP has no 16-bit samples")
    pixels = random_image(*shape, dtype=dtype)
    image = read_image(written(tmp_path / name, pixels, **options))
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, pixels.reshape(7, 5, -1))


def test_planar_tiff(tmp_path):
    pixels = random_image(3, 7, 5)
    path = written(tmp_path / "a.tif", pixels, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_image(path), np.moveaxis(pixels, 0, -1))


def test_inverted_and_palette_tiff(tmp_path):
    pixels = random_image(7, 5)
    np.testing.assert_array_equal(
        read_image(written(tmp_path / "a.tif", pixels, photometric="miniswhite"))[..., 0], 255 - pixels
    )
    colours = random_image(3, 256)
    path = written(tmp_path / "b.tif", pixels, photometric="palette", colormap=colours.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(path), np.moveaxis(colours[:, pixels], 0, -1))


def test_one_bit_images(tmp_path):
    pixels = random_image(7, 5) > 127
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", ~pixels, photometric="miniswhite")
    for name in ("a.png", "a.tif", "b.tif"):
        image = read_image(tmp_path / name)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image[..., 0], pixels * 255)


def test_palette_png_is_rgb_and_alpha_is_dropped(tmp_path):
    palette = Image.fromarray(random_image(7, 5, 3)).quantize(16)
    palette.save(tmp_path / "a.png", transparency=b"\x00\x80")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(palette.convert("RGB")))
    rgba = random_image(7, 5, 4)
    np.testing.assert_array_equal(read_image(written(tmp_path / "b.png", rgba)), rgba[..., :3])
    deep = random_image(7, 5, 4, dtype=np.uint16)
    np.testing.assert_array_equal(read_image(written(tmp_path / "c.png", deep)), deep[..., :3])
    np.testing.assert_array_equal(read_image(written(tmp_path / "d.tif", rgba), 3), rgba[..., :3])


def test_jpeg_orientation(tmp_path):
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95, exif=exif)
    image = read_image(tmp_path / "a.jpg").astype(int)
    # Orientation 6 turns clockwise: the left edge becomes the top.
    assert image.shape == (24, 16, 3) and image[:8].min() > 240 and image[8:].max() < 15


def test_format_is_known_by_content(tmp_path):
    pixels = random_image(7, 5, dtype=np.uint16)
    written(tmp_path / "a.tif", pixels).rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg")[..., 0], pixels)


@pytest.mark.parametrize("name", ["a.png", "deep.png", "a.jpg", "a.bmp", "a.tif", "lzw.tif", "a.npy"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated(tmp_path, name, share):
    dtype = np.uint16 if name == "deep.png" else np.uint8
    options = {"compression": "lzw"} if name == "lzw.tif" else {}
    path = written(tmp_path / name, random_image(40, 30, 3, dtype=dtype), **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError) as raised:
        read_image(path)
    assert one_line(raised).startswith(f"image {path}: ")


def png_header(width, height, depth):
    """A PNG whose header promises more than any memory holds."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, 2, 0, 0, 0])
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:29] = header
    content[29:33] = imagecodecs.zlib_crc32(b"IHDR" + header).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize("depth", [8, 16])
def test_over_large(tmp_path, depth):
    (tmp_path / "a.png").write_bytes(png_header(100_000, 100_000, depth))
    with pytest.raises(InputError) as raised:
        read_image(tmp_path / "a.png")
    assert "over 178,956,970 pixels; accepted at that size: TIFF and .npy" in one_line(raised)


def test_unsupported_images(tmp_path):
    with pytest.raises(InputError, match="cannot be read .No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="received a folder; accepted: an image file, or the folder of a Zarr array"):
        read_image(tmp_path)
    Image.new("L", (4, 4)).save(tmp_path / "a.gif")
    with pytest.raises(InputError, match="unknown format; accepted: PNG, JPEG, BMP, TIFF and .npy"):
        read_image(tmp_path / "a.gif")
    with pytest.raises(InputError, match="axes Z 5, Y 7, X 9; accepted: one image, chosen by --page 0 to 4"):
        stack = written(tmp_path / "a.tif", random_image(5, 7, 9), photometric="minisblack", metadata={"axes": "ZYX"})
        read_image(stack)
    with pytest.raises(InputError, match="32 bits a sample; accepted: 8 or 16"):
        read_image(written(tmp_path / "wide.tif", np.zeros((7, 9), np.uint32)))
    with pytest.raises(InputError, match=r"received shape \(4,\); accepted"):
        read_image(written(tmp_path / "flat.npy", np.zeros(4, np.uint8)))
    with pytest.raises(InputError, match="received complex128; accepted: uint8, uint16 or float"):
        read_image(written(tmp_path / "complex.npy", np.zeros((4, 4), complex)))


@pytest.mark.parametrize(
    "received, channels, expected",
    [([7], 3, [7, 7, 7]), ([5, 5, 5], 1, [5]), ([1, 2, 3, 9], 4, [1, 2, 3, 9])],
)
def test_channels(received, channels, expected):
    image = np.array(received, np.uint16).reshape(1, 1, -1)
    np.testing.assert_array_equal(to_channels(image, channels, "image")[0, 0], expected)


@pytest.mark.parametrize("received, channels", [(3, 1), (3, 2), (5, 3), (1, 2), (2, 1), (2, 3), (4, 3)])
def test_channels_that_do_not_fit(tmp_path, received, channels):
    path = written(tmp_path / "a.npy", random_image(4, 4, received))
    with pytest.raises(InputError) as raised:
        read_image(path, channels)
    assert str(path) in one_line(raised) and f"received {received} channels" in str(raised.value)
    assert f"accepted: {channels} (model.channels)" in str(raised.value)


def test_fit_crops_rows_and_pads_columns():
    image = np.arange(10, dtype=np.uint8).reshape(5, 2, 1)
    fitted = fit_image(image, (2, 5), fill=[99.6])
    # Rows 1 and 2 of five; one column added at the left, two at the right.
    np.testing.assert_array_equal(fitted[..., 0], [[100, 2, 3, 100, 100], [100, 4, 5, 100, 100]])


def test_fit_fills_by_channel_and_type():
    image = np.zeros((1, 1, 3), np.uint8)
    np.testing.assert_array_equal(fit_image(image, (1, 2), fill=(-4, 12.4, 300))[0, 1], [0, 12, 255])
    assert fit_image(np.zeros((1, 1, 1), np.float32), (1, 2), fill=0.5)[0, 1, 0] == 0.5
    assert fit_image(np.zeros((1, 1, 1), np.uint16), (1, 2), fill=300)[0, 1, 0] == 300


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_covers_then_crops(dtype, channels):
    top = np.iinfo(dtype).max if dtype != np.float32 else 1.0
    image = np.zeros((4, 12, channels), dtype)
    image[:, 4:8] = top
    fitted = fit_image(image, (8, 8), resize=True)
    assert fitted.shape == (8, 8, channels) and fitted.dtype == dtype
    # Twice as large, the middle third fills the target; its edges blend with what was cut off.
    assert (fitted[:, 1:-1] == top).all() and (fitted[:, 0] >= top * 0.7).all()


@pytest.mark.parametrize("size", [(3, 7), (9, 2), (1, 1), (20, 20)])
def test_resize_keeps_a_constant_and_any_shape(size):
    fitted = fit_image(np.full((5, 6, 1), 40_000, np.uint16), size, resize=True)
    assert fitted.shape == (*size, 1) and (fitted == 40_000).all()


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 7), st.sampled_from([1, 3])),
    count=st.integers(1, 20),
    spare=st.integers(0, 3),
    margin=st.one_of(st.none(), st.tuples(st.integers(0, 9), st.integers(0, 9))),
    seed=st.integers(0, 99),
)
def test_scene_holds_exactly_the_pasted_images(shape, count, spare, margin, seed):
    images = random_image(count + spare, *shape, seed=seed) // 2 + 1
    labels = np.arange(count + spare)
    columns = int(np.ceil(np.sqrt(count)))
    rows = int(np.ceil(count / columns))
    size = margin and (rows * shape[0] + margin[0], columns * shape[1] + margin[1])
    scene = make_scene(images, labels, size, count, (200,), seed)
    assert scene.image.shape == (*(size or (2 * rows * shape[0], 2 * columns * shape[1])), shape[2])
    assert len(set(scene.labels)) == len(scene.boxes) == count
    rest = scene.image.copy()
    for (top, left, bottom, right), label in zip(scene.boxes, scene.labels, strict=True):
        assert 0 <= top and 0 <= left
        # A second image over the same pixels would meet the erased ones.
        np.testing.assert_array_equal(rest[top:bottom, left:right], images[label])
        rest[top:bottom, left:right] = 200
    assert (rest == 200).all()
    again = make_scene(images, labels, size, count, (200,), seed)
    np.testing.assert_array_equal(scene.image, again.image)
    if not spare:
        np.testing.assert_array_equal(scene.labels, labels)


def test_scene_places_differ_by_seed_and_background_by_channel():
    images, labels = random_image(9, 4, 4, 3), np.arange(9)
    one, other = (make_scene(images, labels, (40, 50), 4, (1, 2, 3.7), seed) for seed in (0, 1))
    assert one.boxes.tolist() != other.boxes.tolist()
    assert {tuple(pixel) for pixel in one.image.reshape(-1, 3)} >= {(1, 2, 4)}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"count": 10}, "scene.count: received 10; accepted: 1 to 9 images"),
        ({"count": 0}, "scene.count: received 0; accepted: 1 to 9 images"),
        ({"count": 5, "size": (7, 18)}, "received [7, 18]; accepted for 5 images of 4 x 6: at least [8, 18]"),
        ({"count": 5, "size": (8, 17)}, "received [8, 17]; accepted for 5 images of 4 x 6: at least [8, 18]"),
        (
            {"count": 1, "background": (1, 2)},
            "background: received 2 values; accepted: 1, or one for each of 3 channels",
        ),
    ],
)
def test_scene_errors(options, message):
    with pytest.raises(InputError) as raised:
        make_scene(random_image(9, 4, 6, 3), np.arange(9), **options)
    assert message in one_line(raised)


def prepared(name):
    folder = os.environ.get("TFDS_DATA_DIR")
    if not folder or not (Path(folder) / name).is_dir():
        pytest.skip(f"TFDS_DATA_DIR holds no {name}")


def test_mnist():
    prepared("mnist")
    data = load(config("mnist", size=(28, 28), validation=5000, seed=3))
    assert data.train.images.shape == (55_000, 28, 28, 1) and data.train.images.dtype == np.uint8
    assert (len(data.validation), len(data.test)) == (5000, 10_000)
    assert data.class_names == tuple("0123456789")
    # Class counts of the published test set.
    assert np.bincount(data.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    both = np.concatenate([data.train.images, data.validation.images])
    assert both.mean() == pytest.approx(33.318, abs=1e-3)


def test_cifar10():
    prepared("cifar10")
    data = load(config("cifar10", size=(32, 32), channels=3, validation=0))
    assert data.train.images.shape == (50_000, 32, 32, 3) and len(data.test) == 10_000
    assert data.class_names[:3] == ("airplane", "automobile", "bird") and data.class_names[9] == "truck"
    assert np.bincount(data.train.labels).tolist() == [5000] * 10
    np.testing.assert_allclose(data.train.images.mean((0, 1, 2)), [125.3, 123.0, 113.9], atol=0.1)


@pytest.fixture(scope="module")
def own_set(tmp_path_factory):
    """A prepared set without a test split, whose images differ in size; the images by their label."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    root = tmp_path_factory.mktemp("tfds")
    images = {split: [random_image(4 + i, 9 - i, 3, seed=i) for i in range(4)] for split in ("train", "validation")}
    datasets = {
        split: tf.data.Dataset.from_generator(
            lambda some=some: ({"image": image, "label": index % 2, "size": index} for index, image in enumerate(some)),
            output_signature={
                "image": tf.TensorSpec((None, None, 3), tf.uint8),
                "label": tf.TensorSpec((), tf.int64),
                "size": tf.TensorSpec((), tf.int64),
            },
        )
        for split, some in images.items()
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="own_set",
        version="1.0.0",
        data_dir=root,
        split_datasets=datasets,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=["even", "odd"]),
                "size": np.int64,
            }
        ),
        disable_shuffling=True,
    )
    return root, images["validation"]


def test_prepared_set_of_varying_sizes_without_test_split(own_set, monkeypatch):
    root, images = own_set
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    data = load(config("own_set", size=(5, 8), channels=3, classes=2, mean=(50,), validation=1))
    assert data.class_names == ("even", "odd") and data.test.labels.tolist() == [0, 1, 0, 1]
    assert "has no test split, so its validation split is the test split" in data.protocol
    for image, fitted in zip(images, data.test.images, strict=True):
        np.testing.assert_array_equal(fitted, fit_image(image, (5, 8), fill=50))


def test_set_on_disk_is_the_set_in_memory(own_set, monkeypatch):
    options = {"dir": own_set[0], "size": (5, 8), "channels": 3, "classes": 2, "validation": 1}
    held = load(config("own_set", **options))
    monkeypatch.setattr("zoo.data.tfds._IN_MEMORY", 0)
    mapped = load(config("own_set", **options))
    assert isinstance(mapped.test.images, np.memmap) and not isinstance(held.test.images, np.memmap)
    np.testing.assert_array_equal(mapped.test.images, held.test.images)
    assert mapped.fingerprint == held.fingerprint
    other = load(config("own_set", **options | {"size": (4, 4)}))
    assert other.test_fingerprint == held.test_fingerprint != held.fingerprint


def test_no_room_on_disk():
    with pytest.raises(InputError, match="the decoded images need 1000000.0 GB, but .* GB free"):
        _allocate([10**9], (1000, 1000, 1), np.dtype(np.uint8))


@pytest.mark.parametrize(
    "name, message",
    [
        ("mnits", "unknown data set 'mnits'; nearest: mnist"),
        ("digit", "unknown data set 'digit'; nearest: digits"),
        ("no set at all", "unknown data set 'no set at all'; accepted: digits, npz, image_folder, or a set of tensor"),
        ("mnist:9.9.9", "data.name: 'mnist:9.9.9' cannot be opened"),
        ("imdb_reviews", "has text (Text), label (ClassLabel); accepted: sets with one Image and one ClassLabel"),
    ],
)
def test_set_that_cannot_be_used(tmp_path, name, message):
    with pytest.raises(InputError) as raised:
        load(config(name, dir=tmp_path))
    assert message in one_line(raised)


def test_set_that_cannot_be_downloaded(tmp_path, monkeypatch):
    import requests

    def no_network(*_, **__):
        raise requests.ConnectionError("no route\nto host")

    monkeypatch.setattr(requests, "head", no_network)
    with pytest.raises(InputError) as raised:
        load(config("kmnist", size=(28, 28), dir=tmp_path))
    message = one_line(raised)
    for part in ("kmnist", "could not be downloaded (no connection to codh.rois.ac.jp)", "TFDS_DATA_DIR or data.dir"):
        assert part in message
    assert "tfds.load('kmnist')" in message and "configs/nin_digits.yaml needs no download" in message
    assert not list(tmp_path.iterdir())


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
