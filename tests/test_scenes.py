"""Labelled large images: how they are scaled, divided and cropped, what is reported, and what is refused."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from data_sets import POINTS, SCENE_SIDES, one_line, random_image, scene_parts, scenes, split_file, write_scenes
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zoo.cli.start import zoo as commands
from zoo.config import load_config
from zoo.data import crops, load, scene_files
from zoo.data.crops import overlap
from zoo.data.faults import Fault
from zoo.data.form import ImageForm
from zoo.data.scenes import labelled_images, read_test_scenes
from zoo.errors import InputError
from zoo.objects.cell_labels import scene_labels
from zoo.pictures import Resized
from zoo.scanning.overlay import palette


def test_images_are_divided_whole_and_cropped(tmp_path):
    data = load(scenes(write_scenes(tmp_path, 12)))
    divided = scene_parts(data)
    assert sorted(sum(map(list, divided.values()), [])) == sorted(f"{index}.tif" for index in range(12))
    assert all(divided.values())
    assert data.class_names == ("disc", "square", "background") and data.scenes.background == "background"
    assert data.scenes.tolerance == 4
    counts = {part: len(each) for part, each in divided.items()}
    assert data.protocol.endswith(
        f"whole images chosen by content hash: {counts['train']} for training, {counts['validation']} for validation, "
        f"{counts['test']} for test"
    )
    for part in divided:
        split, images = getattr(data, part), getattr(data.scenes, part)
        assert Counter(split.labels.tolist()) == {0: len(images), 1: len(images), 2: 2 * len(images)}
        assert split.images.shape == (4 * len(images), 8, 8, 3) and split.images.dtype == np.uint8


def test_a_crop_is_what_numpy_pads_and_cuts(tmp_path):
    data = load(scenes(write_scenes(tmp_path, 3), (20, 26), validation=0))
    for part in ("train", "test"):
        split, wanted = getattr(data, part), []
        for scene in getattr(data.scenes, part):
            padded = np.pad(scene.pixels, ((30, 30), (30, 30), (0, 0)), constant_values=0)
            for y, x in scene.objects.centres:
                top, left = int(np.floor(y - 10 + 0.5)) + 30, int(np.floor(x - 13 + 0.5)) + 30
                wanted.append(padded[top : top + 20, left : left + 26])
        np.testing.assert_array_equal(split.images[split.labels != 2], wanted)


def test_background_crops_are_centred_where_cells_are_background(tmp_path):
    data = load(scenes(write_scenes(tmp_path, 3), validation=0, tolerance=7))
    (scene,) = data.scenes.test
    rows, columns = (np.arange(side) + 0.5 for side in SCENE_SIDES)
    labels = scene_labels(scene, data.scenes, rows, columns, (1, 1))
    padded = np.pad(scene.pixels, ((4, 4), (4, 4), (0, 0)), constant_values=0)
    at = {
        padded[y + 1 : y + 9, x + 1 : x + 9].tobytes(): labels[y, x]
        for y in range(40) for x in range(50)
    }  # fmt: skip
    images = data.test.images[data.test.labels == 2]
    assert len(images) == 2 and all(at[image.tobytes()] == 2 for image in images)


def test_what_is_drawn_depends_on_content_alone(tmp_path):
    root = write_scenes(tmp_path, 8)
    before = load(scenes(root))
    again = load(scenes(root, seed=7, validation=0.5))
    assert scene_parts(before)["test"] == scene_parts(again)["test"] and before.fingerprint == again.fingerprint
    np.testing.assert_array_equal(before.test.images, again.test.images)
    for path in (root / "images").iterdir():
        path.rename(path.with_name(f"renamed-{path.name}"))
    table = root / "points.csv"
    table.write_text(
        "".join(line if line == POINTS else f"renamed-{line}" for line in table.read_text().splitlines(True))
    )
    renamed = load(scenes(root))
    assert (renamed.fingerprint, renamed.test_fingerprint) == (before.fingerprint, before.test_fingerprint)
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(renamed, part).images, getattr(before, part).images)
    # Another label is another set.
    table.write_text(table.read_text().replace("10.5", "11.5"))
    assert load(scenes(root)).fingerprint != before.fingerprint


def test_images_are_brought_to_a_scale(tmp_path):
    root = write_scenes(tmp_path, 3)
    for scene in load(scenes(root, scale=0.5, validation=0)).scenes.train:
        whole = tifffile.imread(root / "images" / scene.name)
        assert scene.pixels.shape == (20, 25, 3) and scene.pixels.dtype == np.uint8 and scene.scale == (0.5, 0.5)
        np.testing.assert_array_equal(scene.pixels, np.rint(Resized(whole, (20, 25))[:, :]))
        np.testing.assert_array_equal(scene.scanned_objects.centres, scene.objects.centres / 2)
        assert scene.image_size == SCENE_SIDES and scene.pixel_size is None


def test_images_are_brought_to_a_pixel_size(tmp_path):
    root = write_scenes(tmp_path, 3)
    for index, size in enumerate((0.5, 1.0, 2.0)):
        path = root / "images" / f"{index}.tif"
        per_centimetre = 10_000 / size
        tifffile.imwrite(path, tifffile.imread(path), photometric="rgb", resolution=(per_centimetre,) * 2,
                         resolutionunit="CENTIMETER")  # fmt: skip
    data = load(scenes(root, pixel_size=1.0, validation=0))
    found = {scene.name: scene for scene in (*data.scenes.train, *data.scenes.test)}
    for index, size in enumerate((0.5, 1.0, 2.0)):
        scene = found[f"{index}.tif"]
        assert scene.pixels.shape[:2] == (40 * size, 50 * size)
        np.testing.assert_allclose((*scene.scale, *scene.pixel_size), size, rtol=1e-6)
    with pytest.raises(
        InputError, match=r"image .\.tif: pixel size: received .* µm; accepted: up to 64 times more or le"
    ):
        load(scenes(root, pixel_size=0.001, validation=0))
    Image.fromarray(random_image(*SCENE_SIDES, 3)).save(root / "images" / "3.png")
    (root / "points.csv").write_text((root / "points.csv").read_text() + "3.png,1.5,2.5,disc\n")
    with pytest.raises(InputError, match=r"data.pixel_size: received 1, of which 1 of 4 files state no .* \(3.png\)"):
        load(scenes(root, pixel_size=1.0, validation=0))


def test_images_of_another_magnification_are_brought_to_what_a_model_sees(tmp_path):
    """A model that was trained by scale on images that state a size, and images of half and of no stated size."""
    root = write_scenes(tmp_path, 2)
    path = root / "images" / "0.tif"
    tifffile.imwrite(path, tifffile.imread(path), photometric="rgb", resolution=(40_000,) * 2,
                     resolutionunit="CENTIMETER")  # fmt: skip
    data, form = scenes(root, scale=0.75).data, ImageForm((8, 8), 3)
    for pixel_size, wanted in ((0.5, 0.5), (None, 0.75)):
        read, _ = read_test_scenes(data, form, ("disc", "square", "background"), pixel_size)
        assert {scene.name: scene.pixels.shape[0] for scene in read.test} == {"0.tif": 40 * wanted, "1.tif": 30}
        (scene,) = [each for each in read.test if each.name == "0.tif"]
        np.testing.assert_allclose(scene.scanned_objects.centres, scene.objects.centres * scene.scale)


@pytest.mark.parametrize("kind, channels", [(np.uint16, 1), (np.uint8, 1), (np.float32, 3)])
def test_samples_keep_their_type(tmp_path, kind, channels):
    root = write_scenes(tmp_path, 3, channels)
    for path in (root / "images").iterdir():
        tifffile.imwrite(path, tifffile.imread(path).astype(kind), photometric="rgb" if channels == 3 else "minisblack")
    data = load(scenes(root, channels=channels, scale=0.6, validation=0))
    assert data.train.images.dtype == kind == data.scenes.train[0].pixels.dtype
    if kind == np.float32:
        assert (data.train.images % 1).any()


def test_large_sets_are_read_by_slices(tmp_path, monkeypatch):
    root = write_scenes(tmp_path, 5)
    held = load(scenes(root, scale=0.7))
    monkeypatch.setattr(scene_files, "IN_MEMORY", 0)
    monkeypatch.setattr(crops, "IN_MEMORY", 0)
    monkeypatch.setattr(scene_files, "_BAND", 16)
    for unreadable in ("refuse", "skip"):
        lazy = load(scenes(root, scale=0.7, unreadable=unreadable))
        for part in ("train", "validation", "test"):
            one, other = getattr(held, part), getattr(lazy, part)
            assert not isinstance(other.images, np.ndarray) and one.images.shape == other.images.shape
            order = np.arange(len(one))[::-2]
            np.testing.assert_array_equal(one.images[order], other.images[order])
            np.testing.assert_array_equal(one.images[1:3], other.images[1:3])
            for whole, sliced in zip(getattr(held.scenes, part), getattr(lazy.scenes, part), strict=True):
                assert not isinstance(sliced.pixels, np.ndarray) and sliced.pixels.dtype == np.uint8
                np.testing.assert_array_equal(whole.pixels, sliced.pixels[:, :])
                np.testing.assert_array_equal(whole.pixels[3:9, 5:30], sliced.pixels[3:9, 5:30])
    assert held.fingerprint == lazy.fingerprint
    # Each place is another crop.
    assert len(set(lazy.train.records.digests.tolist())) == len(lazy.train)


@given(st.integers(-60, 60), st.integers(1, 40), st.integers(1, 20))
def test_a_crop_and_an_image_overlap_where_both_have_pixels(start, length, side):
    (of_image, _), (of_crop, _) = overlap((start, 0), (length, 1), (side, 1))
    places = range(start, start + length)
    assert [*range(side)][of_image] == [*places][of_crop] == [place for place in places if 0 <= place < side]


def told(data, part):
    (fault,) = [fault for fault in data.faults if part in fault.text]
    assert isinstance(fault, Fault)
    return str(fault)


def test_objects_that_are_empty_or_outside_are_named_and_left_out(tmp_path):
    root = write_scenes(tmp_path, 4)
    rows = ["0.tif,1,2,5,6,disc", "1.tif,1,2,1,6,disc", "2.tif,9,2,3,6,disc", "3.tif,45,35,60,60,disc",
            "3.tif,44,30,52,38,disc", "0.tif,5,5,9,9,square", "1.tif,5,5,9,9,square"]  # fmt: skip
    (root / "boxes.csv").write_text("image,xmin,ymin,xmax,ymax,class\n" + "\n".join(rows))
    data = load(scenes(root, labels=root / "boxes.csv", tolerance=None, validation=0))
    with pytest.raises(
        InputError, match="data.scale: received 8, at which the smallest object has 32 x 32 pixels; acc"
    ):
        load(scenes(root, labels=root / "boxes.csv", tolerance=None, scale=8))
    assert told(data, "empty") == (
        "2 of 7 objects are left out, being empty: 1.tif: disc at (1, 4), 2.tif: disc at (6, 4)"
    )
    assert told(data, "outside") == (
        "1 of 7 objects is left out, centred outside the image: 3.tif: disc at (52.5, 47.5)"
    )
    assert told(data, "background alone") == ("1 of 4 images has labels without an object, so background alone: 2.tif")
    together = (*data.scenes.train, *data.scenes.test)
    assert {scene.name: len(scene.objects) for scene in together} == {"0.tif": 2, "1.tif": 1, "2.tif": 0, "3.tif": 1}
    assert data.scenes.tolerance is None


def test_objects_that_are_listed_twice_or_have_two_classes_are_named(tmp_path):
    root = write_scenes(tmp_path, 4)
    rows = ["0.tif,1,2,5,6,disc", "0.tif,1,2,5,6,disc", "1.tif,1,2,5,6,disc", "1.tif,1,2,5,6,square"]
    (root / "boxes.csv").write_text("image,xmin,ymin,xmax,ymax,class\n" + "\n".join(rows))
    options = {"labels": root / "boxes.csv", "tolerance": None, "validation": 0, "unlabelled": "background"}
    data = load(scenes(root, **options))
    assert told(data, "listed twice") == "1 of 4 objects is left out, being listed twice: 0.tif: disc at (3, 4)"
    assert (
        told(data, "another class") == "1 of 4 objects has the place of one of another class: 1.tif: square at (3, 4)"
    )
    together = (*data.scenes.train, *data.scenes.test)
    assert {scene.name: len(scene.objects) for scene in together if len(scene.objects)} == {"0.tif": 1, "1.tif": 2}


def test_coordinates_that_are_shares_of_an_image_are_refused(tmp_path):
    root = write_scenes(tmp_path, 4)
    rows = ["0.tif,0.1,0.2,0.5,0.6,disc", "1.tif,0.5,0.25,1,1,square"]
    (root / "boxes.csv").write_text("image,xmin,ymin,xmax,ymax,class\n" + "\n".join(rows))
    with pytest.raises(
        InputError, match="data.labels: received coordinates of which none is above 1; accepted: pixels"
    ):
        load(scenes(root, labels=root / "boxes.csv", tolerance=None, unlabelled="background"))


def test_crowds_of_coco_are_named_and_left_out(tmp_path):
    root = write_scenes(tmp_path, 3)
    entry = {"image_id": 0, "category_id": 1, "bbox": [4, 5, 7, 6]}
    runs = {"size": list(SCENE_SIDES), "counts": [7, 2000]}
    content = {
        "images": [{"id": index, "file_name": f"{index}.tif"} for index in range(3)],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [
            entry,
            {**entry, "bbox": [4, 5, 7, 7], "iscrowd": 0},
            {**entry, "iscrowd": 1, "segmentation": runs},
        ],
    }
    (root / "coco.json").write_text(json.dumps(content))
    data = load(scenes(root, classes=2, labels=root / "coco.json", tolerance=None, validation=0))
    assert told(data, "crowds") == ("1 of 3 objects is left out, being crowds, several in one: 0.tif: disc at (7.5, 8)")
    together = (*data.scenes.train, *data.scenes.test)
    assert {scene.name: len(scene.objects) for scene in together} == {"0.tif": 2, "1.tif": 0, "2.tif": 0}


def test_images_without_labels(tmp_path):
    root = write_scenes(tmp_path, 6)
    lines = (root / "points.csv").read_text().splitlines(True)
    (root / "points.csv").write_text("".join(lines[:9]))
    message = r"data.labels: received 2 of 6 images without labels \(4.tif, 5.tif\); accepted: labels of each, data.unl"
    with pytest.raises(InputError, match=message) as raised:
        load(scenes(root))
    one_line(raised)
    data = load(scenes(root, unlabelled="background"))
    assert told(data, "taken for") == "2 of 6 images are taken for background alone, having no labels: 4.tif, 5.tif"
    together = [*data.scenes.train, *data.scenes.validation, *data.scenes.test]
    assert sorted(len(scene.objects) for scene in together) == [0, 0, 2, 2, 2, 2]
    # Those without objects have as much background as the others.
    assert len(data.train) + len(data.validation) + len(data.test) == 4 * 4 + 2 * 2
    data = load(scenes(root, unlabelled="skip"))
    assert told(data, "left out") == "2 of 6 images are left out, having no labels: 4.tif, 5.tif"
    divided = [(f"{index}.tif", "train" if index % 2 else "test") for index in range(6)]
    for rows in (divided, divided[:4]):
        data = load(scenes(root, unlabelled="skip", validation=0, split=split_file(root, rows)))
        assert scene_parts(data) == {"train": {"1.tif", "3.tif"}, "validation": set(), "test": {"0.tif", "2.tif"}}
    assert set.union(*scene_parts(data).values()) == {f"{index}.tif" for index in range(4)}


def test_images_that_cannot_be_read(tmp_path):
    root = write_scenes(tmp_path, 5)
    content = (root / "images" / "1.tif").read_bytes()
    (root / "images" / "1.tif").write_bytes(content[:200])
    with pytest.raises(InputError, match=r"1.tif.*data.unreadable=skip leaves out"):
        load(scenes(root))
    data = load(scenes(root, unreadable="skip"))
    assert data.unreadable == ("1.tif",)
    assert "1 image is left out, being unreadable: 1.tif" in map(str, data.faults)
    rows = [("0.tif", "test"), ("1.tif", "train"), ("2.tif", "train"), ("3.tif", "train"), ("4.tif", "validation")]
    data = load(scenes(root, unreadable="skip", split=split_file(root, rows)))
    assert scene_parts(data)["train"] == {"2.tif", "3.tif"}
    rows = [(name, "train" if name == "1.tif" else "test") for name, _ in rows]
    with pytest.raises(InputError, match="no train image that can be read; accepted: at least one"):
        load(scenes(root, unreadable="skip", split=split_file(root, rows), validation=0))


REFUSED = {
    "no labels": ({"labels": None}, "data.labels: received null; accepted: a .csv"),
    "no tolerance": ({"tolerance": None}, "data.tolerance: received null; accepted: how far in pixels"),
    "resize": ({"resize": True}, "data.resize: received true; accepted: false"),
    "number of classes": (
        {"classes": 5},
        r"model.num_classes: received 5; data set scenes has 3 classes \(disc, square",
    ),
    "small images": (
        {"scale": 0.1},
        r"image 0.tif: received 4 x 5 pixels at its scale of 0.1, like 1.tif, 2.tif, 3.tif; acc",
    ),
    "tolerance": (
        {"scale": 2, "tolerance": 5},
        "data.tolerance: received 5, 10 pixels at scale; accepted: up to a side",
    ),
    "background's name": (
        {"background": "disc"},
        "data.labels: received objects of the class 'disc'; accepted: another",
    ),
    "no folder": ({"dir": "gone"}, "data.dir: received '.*gone'; accepted: a folder of images"),
    "grey": ({"channels": 1}, "received 3 channels in colour; accepted: 1"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_in_one_line(tmp_path, what):
    options, message = REFUSED[what]
    root = write_scenes(tmp_path, 4)
    with pytest.raises(InputError, match=message) as raised:
        load(scenes(root, **options))
    one_line(raised)


def test_labels_of_images_of_another_size(tmp_path):
    root = write_scenes(tmp_path, 3)
    folder = tmp_path / "voc"
    folder.mkdir()
    for index in range(3):
        (folder / f"{index}.xml").write_text(
            "<annotation><size><width>100</width><height>80</height></size><object><name>disc</name><bndbox><xmin>2</xmin>"
            "<ymin>2</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object></annotation>"
        )
    with pytest.raises(InputError, match="an image of 80 x 100 pixels for ..tif; accepted: 40 x 50, as this image is"):
        load(scenes(root, classes=2, labels=folder))
    # Points state no size, but lie outside.
    rows = [f"{index}.tif,{90 + index}.5,{70 + index}.5,disc\n" for index in range(3)]
    (root / "points.csv").write_text(POINTS + "".join(rows) + "0.tif,1.5,2.5,disc\n")
    with pytest.raises(
        InputError, match=r"received 3 of 4 objects outside their images .*; accepted: labels of images"
    ):
        load(scenes(root, classes=2))


def test_images_and_masks_below_one_folder(tmp_path):
    root = write_scenes(tmp_path, 4)
    masks = root / "images" / "masks"
    masks.mkdir()
    for index in range(4):
        mask = np.zeros(SCENE_SIDES, np.uint8)
        mask[5 : 9 + index, 7:13] = 255
        Image.fromarray(mask).save(masks / f"{index}.png")
    (root / "images" / "notes.txt").write_text("")
    (root / "images" / "deep").mkdir()
    (root / "images" / "3.tif").rename(root / "images" / "deep" / "3.tif")
    data = load(scenes(root, classes=2, labels=masks, tolerance=None, background="nothing"))
    found = {scene.name: scene.objects.boxes.tolist() for part in ("train", "validation", "test")
             for scene in getattr(data.scenes, part)}  # fmt: skip
    assert found == {"deep/3.tif": [[5, 7, 12, 13]]} | {f"{i}.tif": [[5, 7, 9 + i, 13]] for i in range(3)}
    assert data.class_names == ("object", "nothing") and data.scenes.background == "nothing"
    assert told(data, "no images") == "1 file is left out, being no images: notes.txt"


def test_classes_of_a_model_are_kept(tmp_path):
    root = write_scenes(tmp_path, 3)
    data = scenes(root).data
    known = ("background", "square", "mite", "disc")
    found = labelled_images(data, 3, (8, 8), known)
    assert found.class_names == known
    assert [scene.objects.classes.tolist() for scene in found.scenes] == [[3, 1]] * 3
    # What is too large for its window is no fault of a model that is trained.
    assert len(labelled_images(data.model_copy(update={"tolerance": 30}), 3, (8, 8), known).scenes) == 3
    with pytest.raises(InputError, match="data.labels: unknown class 'square'.*; accepted: disc, mite"):
        labelled_images(data, 3, (8, 8), ("background", "disc", "mite"))
    with pytest.raises(InputError, match="data.background: unknown class 'background'"):
        labelled_images(data, 3, (8, 8), ("disc", "square"))


def plot(*arguments):
    return commands.main(args=["plot", *map(str, arguments)], prog_name="zoo", standalone_mode=False)


@pytest.mark.extended
def test_plot_draws_labels(tmp_path, capsys):
    root = write_scenes(tmp_path, 8, sides=(40, 70))
    config_file = tmp_path / "test.yaml"
    config_file.write_text(
        f"data: {{name: scenes, dir: {root}/images, labels: {root}/points.csv, tolerance: 5}}\n"
        "model: {family: nin, num_classes: 3, image_size: [9, 9], channels: 3, padding: valid,\n"
        "  mlpconvs: [{kernel: 3, filters: [4], pool: {kind: max, size: 2, stride: 2}}]}\n"
        "train: {epochs: 1, optimizer: {name: sgd, learning_rate: 0.1}}\n"
    )
    plot("data.scale=0.8", config_file, "--cell-labels", "-o", tmp_path / "labels.png")
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["objects", "training", "validation", "test"] in lines and lines[-1] == [
        "wrote",
        str(tmp_path / "labels.png"),
    ]
    (disc,) = [line for line in lines if line[0] == "disc"]
    assert sum(map(int, disc[1:])) == 8
    with Image.open(tmp_path / "labels.png") as picture:
        seen = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    # The two classes' colours are there, as the objects' outlines.
    for colour in 255 * palette(3)[:2]:
        assert (np.abs(seen.astype(int) - colour).max(1) <= 2).sum() > 50
    for arguments, message in (
        ([config_file, "data.scale=1"], "data.scale=1: accepted with --cell-labels"),
        (["nin_digits", "--labels"], "data.name: received digits; accepted: scenes"),
    ):
        with pytest.raises(InputError, match=message):
            plot(*arguments)


def shipped(name):
    folder = os.environ.get("ZOO_SCENES_DIR")
    if not folder or not (Path(folder) / name).is_dir():
        pytest.skip("ZOO_SCENES_DIR names no folder with real labelled images")
    return Path(folder) / name


def blood_cells(images, annotations):
    return load(load_config("scenes_blood_cells", [f"data.dir={images}", f"data.labels={annotations}"]))


def all_scenes(data):
    return [scene for part in ("train", "validation", "test") for scene in getattr(data.scenes, part)]


def test_empty_boxes_of_blood_cells_are_named(tmp_path):
    folder = shipped("blood_cells")
    numbers = (0, 10, 20, 30, 338, 343)
    for number in numbers:
        (tmp_path / f"BloodImage_{number:05}.jpg").symlink_to(folder / "images" / f"BloodImage_{number:05}.jpg")
    data = blood_cells(tmp_path, folder / "annotations")
    assert told(data, "empty").endswith(
        "BloodImage_00338.jpg: RBC at (504, 337), BloodImage_00343.jpg: RBC at (181, 329)"
    )
    assert told(data, "not there").startswith("286 label files are left out, being of images that are not there")
    assert len(all_scenes(data)) == 6 and data.class_names == ("Platelets", "RBC", "WBC", "background")
    assert {scene.pixels.shape for scene in all_scenes(data)} == {(120, 160, 3)}


@pytest.mark.extended
def test_all_blood_cells():
    folder = shipped("blood_cells")
    data = blood_cells(folder / "images", folder / "annotations")
    assert told(data, "empty").startswith("2 of 3,943 objects are left out, being empty: ")
    counts = np.bincount(np.concatenate([scene.objects.classes for scene in all_scenes(data)]))
    assert len(all_scenes(data)) == 292 and counts.tolist() == [292, 3348, 301]
    labels = np.concatenate([data.train.labels, data.validation.labels, data.test.labels])
    assert np.bincount(labels).tolist() == [292, 3348, 301, 3941]
