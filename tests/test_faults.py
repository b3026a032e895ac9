"""What is told of a data set's faults: the kind, the count and the names, against sets made with known ones."""

import json
import os
import shutil
import unicodedata

import imagecodecs
import numpy as np
import pytest
from conftest import command
from data_sets import config, image_folder, npz, one_line, random_image, write_images, write_npz
from PIL import Image

from zoo.config import load_config
from zoo.data import folder as folder_module
from zoo.data import load
from zoo.data.audit import far_from_range
from zoo.data.faults import Fault, fault
from zoo.errors import InputError


def parts(root, train=12, test=6, **more):
    """Folders train/ and test/, and those named, of so many images a class, all different."""
    for seed, (name, count) in enumerate({"train": train, "test": test, **more}.items()):
        for label in ("cat", "dog"):
            (root / name / label).mkdir(parents=True)
            for index in range(count):
                pixels = random_image(6, 5, 3, seed=10_000 * seed + 1000 * (label == "dog") + index)
                (root / name / label / f"{index:03}.png").write_bytes(imagecodecs.png_encode(pixels))
    return root


def told(data, kind):
    return [str(each) for each in data.faults if each.kind == kind]


def only(data, kind):
    (line,) = told(data, kind)
    return line


@pytest.mark.parametrize("most", [10_000, 1500, 0])
def test_test_images_that_are_training_images(tmp_path, monkeypatch, most):
    """Both parts in memory, the smaller one, none."""
    monkeypatch.setattr(folder_module, "IN_MEMORY", most)
    root = parts(tmp_path / "set")
    for name in ("cat/001", "cat/004", "dog/002", "dog/005"):
        shutil.copy(root / "train" / f"{name}.png", root / "test" / f"{name}.png")
    data = load(image_folder(root, validation=0.25))
    names = "test/cat/001.png, test/cat/004.png, test/dog/002.png, ..."
    assert only(data, "leak").startswith("4 of 12 test images are also among the training")
    assert only(data, "leak").endswith(names)
    assert len(data.train) == 18 and len(data.test) == 12


def test_the_same_pixels_in_another_file_are_the_same_image(tmp_path):
    root = parts(tmp_path / "set")
    same = Image.open(root / "train" / "cat" / "003.png")
    same.save(root / "test" / "cat" / "same.bmp")
    other = np.asarray(same).copy()
    other[0, 0, 0] ^= 1
    Image.fromarray(other).save(root / "test" / "cat" / "other.bmp")
    grey = random_image(6, 5)
    Image.fromarray(grey).save(root / "train" / "dog" / "grey.png")
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(root / "test" / "dog" / "rgb.png")
    line = only(load(image_folder(root)), "leak")
    assert line == "2 of 15 test images are also among the training images: test/dog/rgb.png, test/cat/same.bmp"


def test_copies_contradictions_and_what_is_held_out(tmp_path):
    root = parts(tmp_path / "set", train=20)
    for index in range(20):
        shutil.copy(root / "train" / "cat" / f"{index:03}.png", root / "train" / "cat" / f"copy{index:03}.png")
    shutil.copy(root / "train" / "dog" / "000.png", root / "train" / "cat" / "dog.png")
    data = load(image_folder(root, validation=0.3))
    assert only(data, "copy").startswith("20 of 61 training images are a copy of another training image: train/cat/")
    assert only(data, "label") == "1 image is in two classes or more: train/cat/dog.png = train/dog/000.png"
    held = {image.tobytes() for image in data.train.images}
    leaked = sum(image.tobytes() in held for image in data.validation.images)
    assert only(data, "leak").startswith(f"{leaked} of {len(data.validation)} validation images are also among the tr")
    assert leaked > 1 and len(data.train) + len(data.validation) == 61


def test_a_clean_set_has_no_faults(tmp_path):
    assert load(image_folder(parts(tmp_path / "set", val=3))).faults == ()
    assert load(image_folder(write_images(tmp_path / "flat"))).faults == ()
    assert load(config("digits")).faults == ()


@pytest.mark.parametrize(
    "sizes, options, line",
    [
        (
            [(9, 8)] * 3,
            {},
            "3 of 39 images (3 training) are of another size than the model's 6 x 5, cropped (3)",
        ),
        ([(9, 2), (4, 5)], {}, ", cropped and padded (1) or padded (1): train/cat/odd0.png, train/cat/odd1.png"),
        ([(3, 3)], {}, "1 of 37 images (1 training) is of another size than the model's 6 x 5, padded (1): tr"),
        (
            [(3, 3), (60, 60), (6, 9)],
            {"resize": True},
            ", cropped (1) or scaled down (1) or scaled up (1): ",
        ),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_images_of_another_size(tmp_path, monkeypatch, sizes, options, line, in_memory):
    if not in_memory:
        monkeypatch.setattr(folder_module, "IN_MEMORY", 0)
    root = parts(tmp_path / "set")
    for index, size in enumerate(sizes):
        Image.fromarray(random_image(*size, 3, seed=index)).save(root / "train" / "cat" / f"odd{index}.png")
    assert line in only(load(image_folder(root, **options)), "size")


def test_sizes_are_those_of_the_upright_image_in_memory_or_not(tmp_path, monkeypatch):
    root = parts(tmp_path / "set")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(random_image(5, 6, 3)).save(root / "test" / "cat" / "turned.jpg", exif=exif)
    Image.fromarray(random_image(6, 5, 3, seed=77_777)).save(root / "test" / "cat" / "upright.tif")
    assert load(image_folder(root)).faults == ()
    monkeypatch.setattr(folder_module, "IN_MEMORY", 0)
    assert load(image_folder(root)).faults == ()


def test_what_is_left_out_is_named(tmp_path):
    root = parts(tmp_path / "set", val=2)
    for name in (".DS_Store", "train/.DS_Store", "train/cat/._000.png", "test/dog/.hidden.png"):
        (root / name).write_text("")
    (root / "train" / "dog" / ".ipynb_checkpoints").mkdir()
    for name in ("train/cat/a.gif", "val/dog/Thumbs.db"):
        (root / name).write_text("")
    (root / "notes.txt").write_text("")
    (root / "train" / "labels.csv").write_text("")
    (root / "extra" / "cat").mkdir(parents=True)
    os.mkfifo(root / "test" / "cat" / "pipe.png")
    data = load(image_folder(root))
    hidden, ending, special, beside = told(data, "left out")
    assert hidden == "5 hidden items are left out: .DS_Store, train/.DS_Store, train/cat/._000.png, ..."
    assert ending.startswith("2 files are left out for an ending other than .png, .jpg,")
    assert ending.endswith(": train/cat/a.gif, val/dog/Thumbs.db")
    assert special == "1 item is left out, being no file: test/cat/pipe.png"
    assert beside == "3 items are left out, being in no class folder: extra/, notes.txt, train/labels.csv"
    flat = write_images(tmp_path / "flat")
    for name in ("readme.md", ".x"):
        (flat / name).write_text("")
    lines = told(load(image_folder(flat)), "left out")
    assert [line.split(": ")[1] for line in lines] == [".x", "readme.md"]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_the_folder_of_validation_images_is_the_validation_part(tmp_path, name):
    root = parts(tmp_path / "set", **{name: 3})
    shutil.copy(root / "train" / "cat" / "001.png", root / name / "cat" / "000.png")
    shutil.copy(root / name / "dog" / "001.png", root / "test" / "dog" / "000.png")
    data = load(image_folder(root, validation=0.5))
    assert (len(data.train), len(data.validation), len(data.test)) == (24, 6, 12)
    wanted = {random_image(6, 5, 3, seed=20_000 + 1000 * k + i).tobytes() for k in (0, 1) for i in range(3)}
    assert len(wanted - {image.tobytes() for image in data.validation.images}) == 1
    own = "24 training images, 6 in the set's own validation part (data.validation is not used); test spl"
    assert data.protocol.startswith(own)
    assert told(data, "leak") == [
        f"1 of 6 validation images is also among the training images: {name}/cat/000.png",
        "1 of 12 test images is also among the validation images: test/dog/000.png",
    ]
    (root / name / "cat" / "001.png").unlink()
    changed = load(image_folder(root, validation=0.5))
    assert changed.fingerprint != data.fingerprint and changed.test_fingerprint == data.test_fingerprint


@pytest.mark.parametrize(
    "folders, message",
    [
        (["train", "val"], "has train/ and val/ but no test/; accepted: train/ and test/, with or without val/"),
        (["test", "valid"], "has valid/ and test/ but no train/"),
        (["val"], "has val/ but no train/ and test/"),
        (["train", "test", "val", "valid"], "has val/ and valid/; accepted: one of them"),
    ],
)
def test_parts_that_are_missing_or_twice(tmp_path, folders, message):
    for name in folders:
        write_images(tmp_path / "set" / name, count=2)
    with pytest.raises(InputError) as raised:
        load(image_folder(tmp_path / "set"))
    assert message in one_line(raised)


def test_classes_may_have_the_names_of_parts(tmp_path):
    root = write_images(tmp_path / "set", classes=("valid", "invalid"))
    assert load(image_folder(root)).class_names == ("invalid", "valid")


def test_classes_without_images(tmp_path):
    root = parts(tmp_path / "set", val=4)
    shutil.rmtree(root / "test" / "dog")
    for path in (root / "val" / "cat").iterdir():
        path.unlink()
    lines = told(load(image_folder(root)), "class")
    assert lines == ["1 of 2 classes has no validation images: cat", "1 of 2 classes has no test images: dog"]
    (root / "test" / "eel").mkdir()
    with pytest.raises(InputError, match=r"train/ and test/ have different classes \(in one only: dog, eel\)"):
        load(image_folder(root))
    for name in ("ant", "bee"):
        (root / "train" / name).mkdir()
    (root / "test" / "eel").rmdir()
    with pytest.raises(InputError, match="ant: has no images, like bee; accepted"):
        load(image_folder(root, classes=4))
    write_images(root / "train", classes=("ant", "bee"), count=1)
    with pytest.raises(InputError, match=r"received 3; data set image_folder has 4 classes \(ant, bee, cat, dog\)"):
        load(image_folder(root, classes=3))


def test_a_single_folder_is_no_set_of_classes(tmp_path):
    with pytest.raises(InputError, match=r"received 2; data set image_folder has 1 class \(images\)"):
        load(image_folder(write_images(tmp_path / "set", classes=("images",))))


def test_names_of_either_unicode_form_are_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "école") for form in ("NFC", "NFD"))
    assert composed != decomposed
    root = tmp_path / "set"
    for part, first in (("train", composed), ("test", decomposed)):
        write_images(root / part, classes=(first, "zebra"), count=4)
    data = load(image_folder(root, validation=0))
    assert sorted(data.class_names) == sorted((composed, "zebra"))
    label = data.class_names.index(composed)
    assert np.bincount(data.test.labels == label).tolist() == [4, 4]
    write_images(root / "train", classes=("zebra", decomposed), count=6)
    both = load(image_folder(root, validation=0))
    assert set(both.class_names) == {composed, "zebra"} and len(both.train) == 6 + 4 + 6


def test_a_share_of_test_images_where_it_means_nothing(tmp_path):
    root = parts(tmp_path / "set")
    with pytest.raises(InputError, match="data.test: received 0.5; accepted: none .* beside .*/test, which holds"):
        load(image_folder(root, test=0.5))
    # A stored config holds every key.
    assert len(load(image_folder(root, test=0.2)).test) == 12
    with pytest.raises(InputError, match="data.test: received 0.5; accepted: 0.2 with data.name = digits"):
        load(config("digits", test=0.5))


def test_npz(tmp_path):
    images = random_image(20, 6, 5, seed=1)
    images[7] = images[4]
    x_test = random_image(8, 6, 5, seed=2)
    x_test[[2, 5]] = images[[0, 2]]
    labels = np.arange(20) % 2
    path = write_npz(tmp_path / "a.npz", x_train=images, x_test=x_test, y_train=labels, x_val=images, other=labels)
    data = load(npz(path, size=(4, 7)))
    assert only(data, "left out").endswith("x_train, y_train, x_test, y_test: other, x_val")
    assert only(data, "leak") == "2 of 8 test images are also among the training images: x_test[2], x_test[5]"
    assert only(data, "label") == "2 images are in two classes or more: x_train[2] = x_test[5], x_train[4] = x_train[7]"
    assert "28 of 28 images (20 training, 8 test)" in only(data, "size")
    assert told(load(npz(write_npz(tmp_path / "b.npz", y_test=np.zeros(8, int)))), "class") == [
        "1 of 2 classes has no test images: 1"
    ]


@pytest.mark.extended
@pytest.mark.parametrize(
    "samples, mean, std, told",
    [
        (np.linspace(0, 1, 640), 128.0, 64.0, "0.5 ± 0.289, -1.99 ± 0.00452 to the model"),
        (np.linspace(0, 60_000, 640).astype(np.uint16), 0.0, 255.0, "3e+04 ± 1.73e+04, 118 ± 68"),
        (np.linspace(0, 4095, 640).astype(np.uint16), 128.0, 64.0, None),
        (np.zeros(640, np.uint8), 128.0, 64.0, None),
        (np.linspace(0, 1, 640), 0.5, 0.3, None),
    ],
)
def test_samples_that_preprocessing_leaves_nothing_of_are_told(samples, mean, std, told):
    faults = far_from_range(samples.reshape(10, 8, 8, 1), (mean,), (std,))
    assert len(faults) == (told is not None)
    assert all(told in str(fault) and str(fault).endswith("0 ± 1: model.preprocess") for fault in faults)


@pytest.mark.extended
def test_training_and_evaluation_tell_of_faults_and_keep_them(capsys, tmp_path):
    root = parts(tmp_path / "set")
    shutil.copy(root / "train" / "cat" / "000.png", root / "test" / "cat" / "000.png")
    (root / "notes.txt").write_text("")
    overrides = [
        "data.name=image_folder", f"data.dir={root}", "model.num_classes=2", "model.channels=3", "train.epochs=1",
        "train.batch_size=8", "canvas.count=2", "canvas.size=null", "model.image_size=[8, 8]",
        "model.preprocess.mean=[0]", "model.preprocess.std=[255]",
    ]  # fmt: skip
    code, out, err = command(capsys, "train", "nin_digits", *overrides, "--workdir", tmp_path / "run")
    assert code == 0, err
    wanted = [str(each) for each in load(load_config("nin_digits", overrides)).faults]
    assert len(wanted) == 3 and out.splitlines()[:3] == wanted
    assert "\ndata: 22 training images, 2 more held out for validation by seed 0; test split used once\n" in out
    kept = json.loads((tmp_path / "run" / "evaluation.json").read_text())["faults"]
    assert [(each["kind"], each["count"]) for each in kept] == [("left out", 1), ("size", 36), ("leak", 1)]
    code, out, err = command(capsys, "evaluate", tmp_path / "run", "-o", tmp_path / "e.json")
    assert code == 0 and out.splitlines()[:3] == wanted, err
    assert json.loads((tmp_path / "e.json").read_text())["faults"] == kept
    code, out, err = command(
        capsys, "evaluate", tmp_path / "run", "--against", tmp_path / "run", "-o", tmp_path / "c.json"
    )
    assert code == 0 and out.splitlines()[:3] == wanted, err
    assert json.loads((tmp_path / "c.json").read_text())["faults"] == kept
    for part in ("train", "test"):
        (root / part / "cat").rename(root / part / "puma")
    code, out, err = command(capsys, "evaluate", tmp_path / "run")
    assert code == 2 and "only its model has 'cat'; only its data set has 'puma'" in err


def test_a_line_is_short_and_shows_no_control_codes():
    names = [f"{'x' * 300}\x1b[31m{index}\n" for index in range(9)]
    (found,) = fault("left out", "files", "are left out", names)
    assert len(str(found)) < 400 and str(found).isprintable() and found.count == 9
    assert str(found).startswith("9 files are left out: xxx") and str(found).endswith(", ...")
    (one,) = fault("left out", "files", "have no ending", ["a"], total=3)
    assert str(one) == "1 of 3 files has no ending: a" and fault("left out", "files", "are", []) == []
    assert one.to_dict() == {"kind": "left out", "text": "1 of 3 files has no ending", "count": 1, "names": ["a"]}
    assert isinstance(one, Fault)
