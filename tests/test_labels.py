"""Labels in files: every form against a truth worked out by hand, and what is refused in one line."""

import json
import os
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zoo.data.labels import Names, read_labels
from zoo.data.labels.lists import read_list
from zoo.data.labels.voc import read_voc
from zoo.errors import InputError

# Two boxes and their classes in a.png, one in b.png: top, left, bottom, right.
TRUTH = {"a.png": {("cell", (4, 8, 23, 31)), ("dust", (0.5, 1, 2.5, 6))}, "b.png": {("cell", (1, 2, 6, 5))}}


def save(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return path


def said(labels):
    """Every image's classes and boxes."""
    return {
        image: {(name, tuple(box)) for name, box in zip(its.names, its.boxes.tolist(), strict=True)}
        for image, its in labels.of_images.items()
    }


def read(path, images=("a.png", "b.png")):
    return read_labels(path, path.parent / "images", list(images))


def voc(boxes, size=None):
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax>"
        f"<ymax>{bottom}</ymax></bndbox></object>"
        for name, (top, left, bottom, right) in boxes
    )
    stated = f"<size><width>{size[1]}</width><height>{size[0]}</height></size>" if size else ""
    return f"<annotation>{stated}{objects}</annotation>"


def polygon(name, *points):
    geometry = {"type": "Polygon", "coordinates": [[*map(list, points), list(points[0])]]}
    properties = {"objectType": "annotation", "classification": {"name": name, "color": [1, 2, 3]}}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


COCO = {
    "images": [{"id": 7, "file_name": "x/a.png", "width": 40, "height": 30}, {"id": 8, "file_name": "b.jpg"}],
    "categories": [{"id": 1, "name": "dust"}, {"id": 3, "name": "cell"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [8, 4, 23, 19]},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [1, 0.5, 5, 2]},
        {"id": 3, "image_id": 8, "category_id": 3, "bbox": [2, 1, 3, 5]},
    ],
}
TABLES = {
    "boxes by corners": (
        "image,xmin,ymin,xmax,ymax,class\na.png,8,4,31,23,cell\na.png,1,0.5,6,2.5,dust\nb.png,2,1,5,6,cell\n"
    ),
    "boxes by sizes, another order and case": (
        "Label;Height;Width;X;Y;Filename\ncell;19;23;8;4;a.png\ndust;2;5;1;0.5;a.png\ncell;5;3;2;1;sub\\b.PNG\n"
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_boxes(tmp_path, name):
    assert said(read(save(tmp_path / "labels.csv", TABLES[name]))) == TRUTH


def test_coco(tmp_path):
    labels = read(save(tmp_path / "labels.json", COCO))
    assert said(labels) == TRUTH and labels.class_names == ("cell", "dust") and not labels.faults
    assert labels.of_images["a.png"].image_size == (30, 40) and labels.of_images["b.png"].image_size is None
    # An image that is listed and has no annotation is one without objects; without categories, ids are the names.
    bare = {**COCO, "annotations": COCO["annotations"][2:], "categories": []}
    labels = read(save(tmp_path / "labels.json", bare))
    assert said(labels) == {"a.png": set(), "b.png": {("3", (1, 2, 6, 5))}}


def test_a_folder_with_a_file_for_each_image(tmp_path):
    folder = tmp_path / "labels"
    a, b = (sorted(TRUTH[name]) for name in TRUTH)
    save(folder / "a.xml", voc(a, (30, 40)))
    save(folder / "b.geojson", {"type": "FeatureCollection", "features": [polygon("cell", (2, 1), (5, 2), (4, 6))]})
    save(folder / "notes.txt", "none")
    save(folder / "c.csv", "x,y,class\n1,2,cell\n")
    labels = read(folder)
    assert said(labels) == TRUTH and labels.of_images["a.png"].image_size == (30, 40)
    assert [fault.names for fault in labels.faults] == [("notes.txt",), ("c.csv",)]
    assert not any(its.are_points.any() for its in labels.of_images.values())
    # QuPath names a file by the image's whole name.
    (folder / "b.geojson").rename(folder / "b.png.geojson")
    assert said(read(folder)) == TRUTH
    save(folder / "B.csv", "left,top,right,bottom,class\n2,1,5,6,cell\n")
    with pytest.raises(InputError, match="image b.png has 2 files .*B.csv, b.png.geojson.*; accepted: one"):
        read(folder)


def test_labels_beside_the_images_they_are_of(tmp_path):
    folder = tmp_path / "images"
    save(folder / "a.xml", voc(TRUTH["a.png"]))
    Image.new("L", (9, 9)).save(folder / "a.png")
    assert said(read_labels(folder, folder, ["a.png"])) == {"a.png": TRUTH["a.png"]}


def test_points_of_geojson_and_of_tables(tmp_path):
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [3.25, 1]}, "properties": {}}
    points = {"type": "MultiPoint", "coordinates": [[5, 6], [7, 8]]}
    named = {"type": "Feature", "geometry": points, "properties": {"classification": {"names": ["cell", "big"]}}}
    point["properties"] = {"classification": {"name": "dust"}}
    labels = read_labels(save(tmp_path / "a.geojson", [point, named]), tmp_path, ["a.tif"]).of_images["a.tif"]
    np.testing.assert_array_equal(labels.boxes[:, :2], [[1, 3.25], [6, 5], [8, 7]])
    np.testing.assert_array_equal(labels.boxes[:, :2], labels.boxes[:, 2:])
    assert labels.names == ("dust", "cell: big", "cell: big") and labels.are_points.all()
    table = save(tmp_path / "a.csv", " CLASS ,Y,X\ncell,1.5,2\ndust,0,7\n")
    labels = read_labels(table, tmp_path, ["a.tif"]).of_images["a.tif"]
    np.testing.assert_array_equal(labels.boxes[:, :2], [[1.5, 2], [0, 7]])


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)), min_size=1, max_size=6), st.integers(0, 11))
def test_points_without_a_decimal_point_are_indices_of_pixels(tmp_path_factory, pairs, place):
    folder = tmp_path_factory.mktemp("points")
    texts = [[str(value) for value in pair] for pair in pairs]

    def centres(name, text):
        return read_list(save(folder / name, text))[""].boxes[:, 1::-1]

    def table():
        return "x,y,class\n" + "".join(f"{x},{y},cell\n" for x, y in texts)

    def geojson():
        return json.dumps({"type": "MultiPoint", "coordinates": 0}).replace(
            "0", "[" + ",".join(f"[{x},{y}]" for x, y in texts) + "]"
        )

    indices = np.array(pairs) + 0.5
    np.testing.assert_array_equal(centres("a.csv", table()), indices)
    np.testing.assert_array_equal(centres("a.geojson", geojson()), indices)
    # One point that is written anywhere in the file makes all of its numbers continuous.
    texts[place % len(pairs)][place % 2] += ".0"
    np.testing.assert_array_equal(centres("a.csv", table()), pairs)
    np.testing.assert_array_equal(centres("a.geojson", geojson()), pairs)


def test_corners_of_boxes_are_never_moved(tmp_path):
    its = read_list(save(tmp_path / "a.csv", "x,y,width,height,class\n1,2,3,4,cell\n"))[""]
    np.testing.assert_array_equal(its.boxes, [[2, 1, 6, 4]])


MASK = np.array(
    [[1, 1, 0, 0, 0, 2],
     [0, 1, 0, 0, 2, 0],
     [0, 0, 0, 0, 0, 0],
     [3, 0, 1, 1, 1, 1]])  # fmt: skip


def masks(folder, values, classes=None):
    folder.mkdir(exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(folder / "a.png")
    if classes:
        save(folder / "classes.csv", classes)
    return folder


def test_masks(tmp_path):
    folder = masks(tmp_path / "masks", MASK, "class,value\ncell,1\ndust,2\ndust,3\nnothing,0\n")
    labels = read_labels(folder, tmp_path, ["a.jpg"])
    # Pixels that meet at a corner are one object.
    assert said(labels)["a.jpg"] == {
        ("cell", (0, 0, 2, 2)),
        ("cell", (3, 2, 4, 6)),
        ("dust", (0, 4, 2, 6)),
        ("dust", (3, 0, 4, 1)),
    }
    assert labels.of_images["a.jpg"].image_size == (4, 6) and labels.class_names == ("cell", "dust")


def test_masks_whose_values_number_objects(tmp_path):
    """A value is one object, in two pieces too, and neighbours that touch are two; values with rows are as ever."""
    folder = masks(tmp_path / "masks", MASK, "value,class\n*,cell\n2,dust\n")
    labels = read_labels(folder, tmp_path, ["a.jpg"])
    assert said(labels)["a.jpg"] == {
        ("cell", (0, 0, 4, 6)),
        ("cell", (3, 0, 4, 1)),
        ("dust", (0, 4, 2, 6)),
    }
    assert labels.class_names == ("cell", "dust") and not labels.faults
    touching = masks(folder, np.array([[7, 7, 200], [7, 200, 200]]), "value,class\n*,cell\n")
    assert said(read_labels(touching, tmp_path, ["a.jpg"]))["a.jpg"] == {("cell", (0, 0, 2, 2)), ("cell", (0, 1, 2, 3))}


def test_masks_of_one_value_are_objects(tmp_path):
    folder = masks(tmp_path / "masks", (MASK == 1) * 255)
    assert said(read_labels(folder, tmp_path, ["a.tif"])) == {
        "a.tif": {("object", (0, 0, 2, 2)), ("object", (3, 2, 4, 6))}
    }


@pytest.mark.parametrize(
    "values, classes, message",
    [
        (MASK, None, "masks with the values 1, 2, 3; accepted: one value beside 0, or classes.csv"),
        (MASK, "value,class\n1,cell\n2,dust\n", "a.png: values: received 3; accepted: 0 and those of classes.csv"),
        (MASK, "value\n1\n", "a first line .value.; accepted: a header there, with the columns value,class, each once"),
        (MASK, "value,class\n1,a\n1,b\n", "row 2: received '1,b'"),
        (MASK, "value,class\nx,a\n", "row 1: received 'x,a'; accepted: a whole number, or . for all others"),
        (MASK, "value,class\n*,a\n*,b\n", r"row 2: received '\*,b'"),
        (MASK, "value,class\n1,\n", "has an empty name"),
        (np.dstack([MASK, MASK, MASK + 1]), None, "received colours; accepted: one value a pixel"),
    ],
)
def test_masks_that_are_refused(tmp_path, values, classes, message):
    with pytest.raises(InputError, match=message):
        read_labels(masks(tmp_path / "masks", values, classes), tmp_path, ["a.png"])


def test_objects_without_any_class(tmp_path):
    labels = read(save(tmp_path / "points.csv", "image,x,y\na.png,1,2\nb.png,3,4\n"))
    assert labels.class_names == ("object",) and len(labels.of_images["a.png"]) == 1
    assert [str(fault) for fault in labels.faults] == [
        "2 of 2 images have labels without a class, whose objects are of the class 'object': a.png, b.png"
    ]
    with pytest.raises(InputError, match=r"objects without a class \(b.png\), others have one; accepted: a class"):
        read(save(tmp_path / "points.csv", "image,x,y,class\na.png,1,2,cell\nb.png,3,4,\n"))


@pytest.mark.parametrize("ending, bits", [("png", 8), ("png", 4), ("tif", 8)])
def test_a_palette_is_no_part_of_a_mask(tmp_path, ending, bits):
    """Values are indices, as in Pascal VOC's own masks, whatever colours show them."""
    values = np.zeros((30, 40), np.uint8)
    values[4:9, 4:9], values[20:25, 20:30] = 1, 2
    folder = tmp_path / "masks"
    folder.mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (256, 3))
    colours[:3] = (0, 0, 0), (128, 0, 0), (128, 0, 0)
    if ending == "png":
        shown = Image.fromarray(values, "L").copy()
        shown.putpalette(colours.astype(np.uint8).tobytes())
        shown.save(folder / "a.png", bits=bits)
    else:
        tifffile.imwrite(folder / "a.tif", values, photometric="palette", colormap=(colours.T * 257).astype(np.uint16))
    save(folder / "classes.csv", "value,class\n1,cell\n2,dust\n")
    assert read(folder, ["a.png"]).of_images["a.png"].names == ("cell", "dust")


def test_a_grey_palette_is_grey(tmp_path):
    """As an optimising writer leaves a mask of black and white, in any order."""
    indices = np.ones((30, 40), np.uint8)
    indices[4:9, 4:9] = 0
    shown = Image.fromarray(indices, "L").copy()
    shown.putpalette([255, 255, 255, 0, 0, 0])
    (tmp_path / "masks").mkdir()
    shown.save(tmp_path / "masks" / "a.png")
    (found,) = read(tmp_path / "masks", ["a.png"]).of_images["a.png"].boxes
    assert found.tolist() == [4, 4, 9, 9]


def test_labels_of_images_that_are_not_there(tmp_path):
    table = save(tmp_path / "points.csv", "image,x,y,class\na.png,1,2,cell\nz.png,3,4,cell\ny.png,3,4,mite\n")
    labels = read(table)
    assert [*labels.of_images] == ["a.png"] and labels.class_names == ("cell",)
    assert str(labels.faults[0]) == "2 of 3 images are not there, and their labels left out: y.png, z.png"
    with pytest.raises(InputError, match=r"labels of a.png, z.png, y.png; accepted: those of images in data.dir"):
        read(table, ["q.png", "r.png"])


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.csv", "image,x,y,class_id\na.png,1,2,3\nb.png,3,4,5\n"),
        ("a.json", [{"image_id": a, "category_id": b, "bbox": [1, 2, 3, 4]} for a, b in (("a", 3), ("b", 5))]),
        ("a.csv", "image;x;y;Category ID;iscrowd\na.png;1;2;3;0\nb.png;3;4;5;False\n"),
    ],
)
def test_classes_may_have_numbers_for_names(tmp_path, name, content):
    labels = read(save(tmp_path / name, content))
    assert labels.class_names == ("3", "5") and not any(its.are_crowds.any() for its in labels.of_images.values())


def test_a_class_of_geojson_may_be_a_text_or_none(tmp_path):
    cell, other = polygon("", (1, 2), (4, 2), (4, 6)), polygon("", (11, 2), (14, 2), (14, 6))
    cell["properties"]["classification"] = "cell"
    for nothing in (None, {"name": None}, {}):
        other["properties"]["classification"] = nothing
        with pytest.raises(InputError, match=r"objects without a class \(a.png\), others have one"):
            read(save(tmp_path / "labels" / "a.geojson", [cell, other]).parent)
    assert read(save(tmp_path / "labels" / "a.geojson", [cell]).parent).class_names == ("cell",)


@pytest.mark.parametrize(
    "height, width, size", [(30.0, "40", (30, 40)), ("30.0", 40, (30, 40)), ("?", 40, None), (0, 40, None)]
)
def test_sizes_that_labels_state(tmp_path, height, width, size):
    image = {"id": 7, "file_name": "a.png", "width": width, "height": height}
    path = save(tmp_path / "a.json", {**COCO, "images": [image, COCO["images"][1]]})
    assert read(path).of_images["a.png"].image_size == size
    written = read_voc(save(tmp_path / "a.xml", voc([], (height, width))))
    assert written.image_size == size


REFUSED = {
    "no header": (
        "points.csv",
        "a.png,1,2,cell\n",
        "first line: received .'a.png', '1', '2', 'cell'.; accepted: a header there, with x, y of a p",
    ),
    "a header alone": ("points.csv", "image,x,y,class\n", "received no object; accepted: at least one"),
    "a box that is no number": ("labels/a.xml", voc([("cell", (1, 2, "nan", 4))]), r"bndbox of .'1', '2', 'nan', '4'"),
    "no image column": ("points.csv", "x,y,class\n1,2,cell\n", "no image of any object; accepted: one for each"),
    "an image missing": ("points.csv", "image,x,y\na.png,1,2\n,1,2\n", "object 2: received no image, others are of 'a"),
    "no coordinates": (
        "points.csv",
        "image,x,class\na.png,1,cell\n",
        "first line: .*accepted: a header there, with x, y of a point",
    ),
    "no number": ("points.csv", "image,x,y,class\na.png,1,?,cell\n", r"box 1: .*'\?'"),
    "infinite": ("points.csv", "image,x,y,class\na.png,1,1e999,cell\n", r"object 1: received \[inf"),
    "a column twice": ("points.csv", "image,x,y,X\na.png,1,2,3\n", "the column 'X' twice"),
    "broken JSON": ("labels.json", "{", "labels.json: broken"),
    "two spellings of an image": ("a.csv", "image,x,y\na.png,1,2\nA.tif,1,2\n", "'a.png' and 'A.tif' for a.png"),
    "an id of two images": (
        "a.json",
        {**COCO, "images": [{"id": 7, "file_name": "a.png"}, {"id": 7, "file_name": "b.jpg"}]},
        "received the id 7 of two 'images'; accepted: one for each",
    ),
    "an id of two categories": (
        "a.json",
        {**COCO, "categories": [{"id": 3, "name": "cell"}, {"id": 3, "name": "dust"}, {"id": 1}]},
        "received the id 3 of two 'categories'; accepted: one for each",
    ),
    "another category": ("a.json", {**COCO, "categories": [{"id": 3}]}, "category_id '1'; accepted: one of 'categ"),
    "a class that is no name": (
        "a.json",
        [{"image": "a.png", "x": 1, "y": 2, "class": ["b"]}],
        "1: received class .'b'",
    ),
    "another ending": ("labels.txt", "", "received '.*labels.txt'; accepted: a file .*, or a folder with a file for e"),
    "not there": ("gone.csv", None, "gone.csv: cannot be read"),
    "a map's coordinates": ("a.geojson", {"type": "FeatureCollection", "crs": {}, "features": []}, "with a 'crs'"),
    "no file of an image": ("labels/z.xml", "<annotation/>", "no file is named as an image of data.dir is"),
    "broken XML": ("labels/a.xml", "<annotation", "a.xml: broken"),
    "other XML": ("labels/a.xml", "<svg/>", "root element: received 'svg'"),
    "no box": ("labels/a.xml", "<annotation><object><name>a</name></object></annotation>", "object 1: received a bndb"),
    "a file of another image": ("labels/a.csv", "image,x,y\nb.png,1,2\n", "objects of b.png; accepted: those of a.png"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_labels_that_are_refused_in_one_line(tmp_path, name):
    file, text, message = REFUSED[name]
    path = tmp_path / file if text is None else save(tmp_path / file, text)
    path = path.parent if path.parent != tmp_path else path
    with pytest.raises(InputError, match=message) as raised:
        read(path)
    assert "\n" not in str(raised.value)


def test_names_of_images():
    names = Names(["x/a.png", "y/a.png", "y/b.tif", "7.png", "café.png"])
    assert names.find("x/a.png") == "x/a.png" and names.find("C:\\data\\y\\a.png") == "y/a.png"
    assert names.find("B.PNG") == "y/b.tif" and names.find("b") == "y/b.tif" and names.find("7") == "7.png"
    # The same letters, in Unicode's decomposed form.
    assert names.find("cafe\u0301.png") == "café.png"
    assert names.find("c.png") is None and names.find("") is None
    with pytest.raises(InputError, match="image 'a.png': may be 2 of data.dir .x/a.png, y/a.png."):
        names.find("a.png")


def scenes(name):
    folder = os.environ.get("ZOO_SCENES_DIR")
    if not folder or not (Path(folder) / name).is_dir():
        pytest.skip("ZOO_SCENES_DIR names no folder with real labelled images")
    return Path(folder) / name


def test_blood_cells_as_a_plain_parser_finds_them():
    folder = scenes("blood_cells")
    images = sorted(path.name for path in (folder / "images").iterdir())
    labels = read_labels(folder / "annotations", folder / "images", images)
    count, empty = Counter(), 0
    for path in (folder / "annotations").glob("*.xml"):
        found = []
        for each in ElementTree.parse(path).iter("object"):
            left, top, right, bottom = (
                float(each.find(f"bndbox/{side}").text) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            found.append((each.find("name").text, (top, left, bottom, right)))
            empty += left >= right or top >= bottom
        its = labels.of_images[f"{path.stem}.jpg"]
        assert found == [(name, tuple(box)) for name, box in zip(its.names, its.boxes.tolist(), strict=True)]
        assert its.image_size == (480, 640) and not its.are_points.any()
        count.update(name for name, _ in found)
    assert len(labels.of_images) == 292 and empty == 2
    assert count == {"RBC": 3350, "WBC": 301, "Platelets": 292}


def test_bone_marrow_has_129_nuclei_an_image():
    folder = scenes("bone_marrow")
    images = sorted(path.name for path in (folder / "images").iterdir())
    labels = read_labels(folder / "points.csv", folder / "images", images)
    counts = Counter(line.split(",")[0] for line in (folder / "points.csv").read_text().splitlines()[1:])
    assert {image: len(its) for image, its in labels.of_images.items()} == counts and len(counts) == 32
    assert round(np.mean([*counts.values()])) == 129
    # Indices of pixels, at their centres.
    assert all((its.boxes % 1 == 0.5).all() for its in labels.of_images.values())


def test_voc_without_a_size(tmp_path):
    assert read_voc(save(tmp_path / "a.xml", voc([], (0, 0)))).image_size is None
