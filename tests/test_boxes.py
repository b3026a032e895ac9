"""Files of boxes: taken rightly, or refused in one line."""

import csv
import json

import numpy as np
import pytest
from conftest import command, noise, randomize
from keras import Input, Model, layers

import zoo
from zoo.errors import InputError
from zoo.large_images import box_scores
from zoo.scanning.boxes import Boxes, BoxScores, check_boxes, read_boxes

BOX = [[4, 8, 23, 31]]
TABLES = {
    "corners": "top,left,bottom,right\n4,8,23,31\n",
    "minima": "xmin,ymin,xmax,ymax\n8,4,31,23\n",
    "a header in another case": "Top, LEFT ,Bottom,Right\n4,8,23,31\n",
    "names with lines": "x_min,y_min,x_max,y_max\n8,4,31,23\n",
    "numbered": "x1,y1,x2,y2\n8,4,31,23\n",
    "sizes": "x,y,width,height\n8,4,23,19\n",
    "left and top with sizes": "left,top,width,height\n8,4,23,19\n",
    "both kinds that agree": "y1,x1,y2,x2,ymin,xmin,ymax,xmax\n4,8,23,31,4.0,8,23,31\n",
    "sizes of the image beside": "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,640,480,b,8,4,31,23\n",
    "semicolons": "top;left;bottom;right\n4;8;23;31\n",
    "tabs": "top\tleft\tbottom\tright\n4\t8\t23\t31\n",
    "a byte order mark": "\ufefftop,left,bottom,right\n4,8,23,31\n",
    "empty lines": "\n \ntop,left,bottom,right\n\n4,8,23,31\n,,,\n  \n",
    "columns without a name": "top,left,bottom,right,,\n4,8,23,31,,\n",
    "quoted": '"top","left","bottom","right"\r\n"4","8"," 23 ","3.1e1"\r\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path, name):
    (tmp_path / "boxes.csv").write_text(TABLES[name], encoding="utf-8")
    np.testing.assert_array_equal(read_boxes(tmp_path / "boxes.csv"), BOX)


def polygon(*points):
    return {"type": "Polygon", "coordinates": [[*points, points[0]]]}


def feature(geometry, **properties):
    return {"type": "Feature", "id": "a", "geometry": geometry, "properties": properties}


TRIANGLE = feature(polygon([8, 4], [31, 10.5], [20, 23]), objectType="annotation", classification={"name": "Tumor"})
ANNOTATION = {"id": 1, "image_id": 7, "category_id": 2, "bbox": [8, 4, 23, 19]}
JSONS = {
    "numbers": BOX,
    "names": [{"xmin": 8, "ymin": 4, "xmax": 31, "ymax": 23}],
    "numbers as text": [{"top": "4", "left": "8.0", "bottom": " 23", "right": "31"}],
    "a box": [{"box": BOX[0], "name": "a"}],
    "a box by names": [{"score": 1, "box": {"xmin": 8, "ymin": 4, "xmax": 31, "ymax": 23}}],
    "COCO": {"images": [{"id": 7, "file_name": "a.png"}], "annotations": [ANNOTATION], "categories": []},
    "COCO without images": {"annotations": [ANNOTATION]},
    "COCO's results": [{"image_id": 7, "category_id": 2, "bbox": [8, 4, 23, 19], "score": 0.5}],
    "GeoJSON": {"type": "FeatureCollection", "features": [TRIANGLE]},
    "GeoJSON, a list": [TRIANGLE],
    "GeoJSON, one": TRIANGLE,
    "GeoJSON, a geometry": polygon([8, 4, 0], [31, 4, 0], [20, 23, 0]),
    "GeoJSON, several polygons": {
        "type": "MultiPolygon",
        "coordinates": [polygon([8, 4], [9, 6], [8, 6])["coordinates"], polygon([30, 20], [31, 23])["coordinates"]],
    },
}


@pytest.mark.parametrize("name", JSONS)
def test_json(tmp_path, name):
    for ending in ("json", "geojson"):
        (tmp_path / f"boxes.{ending}").write_text(json.dumps(JSONS[name]))
        np.testing.assert_array_equal(read_boxes(tmp_path / f"boxes.{ending}"), BOX)


def test_points_are_the_pixels_they_lie_in(tmp_path):
    points = [feature({"type": "Point", "coordinates": [31.5, 4.2]}, name="a"),
              feature({"type": "MultiPoint", "coordinates": [[8, 23], [9.9, 0.1]]}, name="b")]  # fmt: skip
    (tmp_path / "points.geojson").write_text(json.dumps(points))
    found = read_boxes(tmp_path / "points.geojson")
    np.testing.assert_array_equal(found, [[4, 31, 5, 32], [23, 8, 24, 9], [0, 9, 1, 10]])
    assert [each["name"] for each in found.further] == ["a", "b", "b"]


def test_boxes_of_several_images_are_those_of_the_one(tmp_path):
    images = [{"id": 1, "file_name": "x/a.png", "height": 60, "width": 71}, {"id": 7, "file_name": "x\\b.png"}]
    other = {**ANNOTATION, "image_id": 1, "bbox": [1, 2, 3, 4]}
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": [ANNOTATION, other]}))
    (tmp_path / "table.csv").write_text("filename,x,y,w,h\nb.png,8,4,23,19\na.tif,1,2,3,4\n")
    for name in ("coco.json", "table.csv"):
        np.testing.assert_array_equal(read_boxes(tmp_path / name, "there/b.png"), BOX)
        np.testing.assert_array_equal(read_boxes(tmp_path / name, "a.jpg"), [[2, 1, 6, 4]])
        for image in (None, "c.png"):
            with pytest.raises(InputError, match="received boxes of 2 images: .*a.*b.*; accepted: some of"):
                read_boxes(tmp_path / name, image)
    # The file says how large its image is.
    with pytest.raises(InputError, match="of an image of 60 x 71 pixels; accepted: 60 x 70"):
        check_boxes(read_boxes(tmp_path / "coco.json", "a.png"), (60, 70))
    check_boxes(read_boxes(tmp_path / "coco.json", "a.png"), (60, 71))


def test_boxes_of_another_image_are_refused(tmp_path):
    table, coco = tmp_path / "table.csv", tmp_path / "coco.json"
    head = "filename,top,left,bottom,right\n"
    images = [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}]
    coco.write_text(json.dumps({"images": images, "annotations": [ANNOTATION]}))
    table.write_text(head + "a.png,4,8,23,31\n")
    for path in (table, coco):
        np.testing.assert_array_equal(read_boxes(path, "there/A.tif"), BOX)
        np.testing.assert_array_equal(read_boxes(path), BOX)
        with pytest.raises(InputError, match="received boxes of another image: 'a.png'; accepted: some of 'b.png'"):
            read_boxes(path, "b.png")
    coco.write_text(json.dumps({"images": images, "annotations": [{**ANNOTATION, "image_id": 9}]}))
    with pytest.raises(InputError, match="box 1: received image_id 9"):
        read_boxes(coco, "a.png")
    # The end of the path that most is shared of.
    table.write_text(head + "A/1.png,4,8,23,31\nB\\1.png,1,2,3,4\n1.jpg,5,6,7,8\n")
    np.testing.assert_array_equal(read_boxes(table, tmp_path / "A" / "1.png"), BOX)
    np.testing.assert_array_equal(read_boxes(table, tmp_path / "B" / "1.tif"), [[1, 2, 3, 4]])
    with pytest.raises(InputError, match="received boxes of 2 images: 'A/1.png', .*; accepted: one name that fits"):
        read_boxes(table, tmp_path / "C" / "1.png")
    # Without the ending, of two.
    table.write_text(head + "a.tif,4,8,23,31\na.jpg,1,2,3,4\n")
    with pytest.raises(InputError, match="received boxes of 2 images: .*'a.tif'.*; accepted: one name that fits"):
        read_boxes(table, "a.png")
    table.write_text(head + "a.png,4,8,23,31\n ,1,2,3,4\n")
    for image in ("a.png", None):
        with pytest.raises(InputError, match="box 2: received no image, others are of 'a.png'"):
            read_boxes(table, image)


@pytest.mark.parametrize(("number", "image", "is_its"), [(7, "a.png", 1), (7, "0007.jpg", 1), (7, "8.png", 0)])
def test_a_number_names_files_that_are_named_by_one(tmp_path, number, image, is_its):
    (tmp_path / "boxes.json").write_text(json.dumps([{**ANNOTATION, "image_id": number}]))
    if is_its:
        np.testing.assert_array_equal(read_boxes(tmp_path / "boxes.json", image), BOX)
    else:
        with pytest.raises(InputError, match="received boxes of another image"):
            read_boxes(tmp_path / "boxes.json", image)


REFUSED = {
    "a column twice": ("top,left,bottom,right,top\n4,8,23,31,5\n", "received the column 'top' twice"),
    "twice in other letters": ("top,left,bottom,right,Top\n4,8,23,31,5\n", "the column 'Top' twice"),
    "another one twice": ("a,a,top,left,bottom,right\n1,2,4,8,23,31\n", "the column 'a' twice"),
    "two spellings": ("x_min,xmin,ymin,xmax,ymax\n8,8,4,31,23\n", "the column 'xmin' twice"),
    "two boxes": ("y1,x1,y2,x2,ymin,xmin,ymax,xmax\n4,8,23,31,5,8,23,31\n", "box 1: received two boxes, by"),
    "a centre beside": ("x,y,bx,by,width,height\n20,14,8,4,23,19\n", "box 1: received two boxes, by"),
    "no header": ("4,8,23,31\n4,8,23,31\n", "first line: received .*accepted: a header there, with numbers named"),
    "too many columns": ("top,left,bottom,right\n4,8,23,31,5\n", "box 1: received .*5 of 4 columns"),
    "a decimal comma": ("top;left;bottom;right\n4;8;23,5;31\n", "box 1: received"),
    "fractions": (
        "ymin,xmin,ymax,xmax\n0.1,0.1,0.5,0.5\n0.25,0.5,0.75,1.0\n",
        "box 1: .*fractions of the image's sides",
    ),
    "fractions that reach beyond": ("ymin,xmin,ymax,xmax\n-0.1,0.1,1.05,0.5\n", "fractions"),
    "a fraction among pixels": ("top,left,bottom,right\n4,8,23,31\n0.1,0.2,0.5,1\n", "box 2: .*fractions"),
    "no number": ("top,left,bottom,right\n4,8,23,nan\n", "box 1: received"),
    "an infinite one": ("top,left,bottom,right\n4,8,23,1e999\n", "box 1: received"),
    "upside down": ("top,left,bottom,right\n23,8,4,31\n", "box 1: received .*top < bottom"),
    "a quote that does not end": ('top,left,bottom,right\n"4,8,23,31\n', "broken"),
}
REFUSED_JSON = {
    "NaN": ('[{"top": NaN, "left": 8, "bottom": 23, "right": 31}]', "broken .*NaN"),
    "true": ("[[true, 8, 23, 31]]", "box 1: received"),
    "a key twice": ('[{"top": 4, "top": 5, "left": 8, "bottom": 23, "right": 31}]', "the key 'top' twice"),
    "bbox alone": ('[{"bbox": [8, 4, 31, 23]}]', "received 'bbox' alone"),
    "no bbox": ('{"annotations": [{"segmentation": []}]}', "box 1: received bbox None"),
    "no width": ('{"annotations": [{"bbox": [8, 4, 0, 19]}]}', "box 1: received"),
    "no list": ('{"annotations": 3}', "no lists of objects"),
    "another object": ('{"boxes": [[4, 8, 23, 31]]}', "accepted: a list of boxes, COCO's JSON or GeoJSON"),
    "a line": ('{"type": "LineString", "coordinates": [[1, 2], [3, 4]]}', "geometry 'LineString'; accepted: Point"),
    "no geometry": ('{"type": "Feature", "geometry": null}', "geometry None"),
    "no points": ('{"type": "Polygon", "coordinates": []}', "geometry 'Polygon'"),
    "a map": ('{"type": "FeatureCollection", "crs": {}, "features": []}', "coordinates of a map"),
    "fractions": ("[[0, 0, 1, 1]]", "fractions"),
    "deep": ("[" * 100_000, "broken"),
    "large": ("[[1, 2, 3, 1" + "0" * 400 + "]]", "box 1: received"),
}


@pytest.mark.parametrize("name", [*(f"csv {name}" for name in REFUSED), *(f"json {name}" for name in REFUSED_JSON)])
def test_what_is_refused(tmp_path, name):
    ending, _, name = name.partition(" ")
    text, message = (REFUSED if ending == "csv" else REFUSED_JSON)[name]
    (tmp_path / f"boxes.{ending}").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_boxes(tmp_path / f"boxes.{ending}")
    line = str(caught.value)
    assert f"boxes.{ending}" in line and "\n" not in line and len(line) <= 500


@pytest.mark.parametrize("boxes", [[(0.1, 0.1, 0.5, 0.5)], np.array([[0, 0, 1, 1.0]]), [(3, 3, 9, 9), (0.5, 0, 1, 1)]])
def test_lists_of_fractions_are_refused(boxes):
    with pytest.raises(InputError, match="box .: received .*fractions of the image's sides"):
        check_boxes(boxes, (60, 71))


class Frame(dict):
    """Columns by name, as in a data frame; as an array, its rows."""

    @property
    def columns(self):
        return list(self)

    def __array__(self, dtype=None, copy=None):
        return np.array(list(zip(*self.values(), strict=True)), dtype)


def test_tables_at_hand_are_taken_by_names():
    named = {"label": ["a"], "xmin": np.array([8]), "ymin": [4], "xmax": [31], "ymax": [23.0]}
    structured = np.array([(8, 4, 31, 23)], [(name, "f4") for name in ("xmin", "ymin", "xmax", "ymax")])
    for boxes in (Frame(named), structured, [{name: value[0] for name, value in named.items()}]):
        np.testing.assert_array_equal(check_boxes(boxes, (60, 71)), BOX)
    for boxes in (Frame(a=[4], b=[8], c=[23], d=[31]), structured[["xmin", "ymin"]]):
        with pytest.raises(InputError, match="^boxes: box 1: received .*; accepted: numbers named top"):
            check_boxes(boxes, (60, 71))


def test_a_pixel_at_the_corner_among_other_boxes_is_one():
    check_boxes([(3, 3, 9, 9), (0, 0, 1, 1)], (60, 71))


@pytest.fixture(scope="module")
def model():
    image = Input((16, 16, 1))
    x = layers.MaxPooling2D(4)(layers.Conv2D(4, 3, padding="same")(layers.Rescaling(1 / 255)(image)))
    return randomize(Model(image, layers.Dense(3)(layers.Flatten()(x))))


@pytest.mark.parametrize("way", ["roi", "cells", "crops"])
def test_of_boxes_that_reach_beyond_the_image_the_part_inside_is_scored(model, way):
    image = noise(60, 71, 1)
    given = box_scores(model, image, [(-9, 30, 20, 90), (4, 8, 23, 31)], way)
    wanted = box_scores(model, image, [(0, 30, 20, 71), (4, 8, 23, 31)], way)
    np.testing.assert_array_equal(given.scores, wanted.scores)
    assert given.beyond == 1 and wanted.beyond == 0 and given.boxes[0].tolist() == [-9, 30, 20, 90]


def test_further_columns_are_kept(tmp_path, capsys, model):
    zoo.save(model, tmp_path / "model.keras")
    np.save(tmp_path / "image.npy", noise(60, 71).astype(np.uint8))
    (tmp_path / "boxes.csv").write_text("name,top,left,bottom,right,class\nä,4,8,23,31,x\nb,50,3,70,40,\n", "utf-8")
    for source, result in (("boxes.csv", "a.csv"), ("a.csv", "b.json"), ("b.json", "c.csv")):
        line = ("regions", tmp_path / "model.keras", tmp_path / "image.npy", tmp_path / source, "-o", tmp_path / result)
        code, out, err = command(capsys, *line)
        assert code == 0 and "note: 1 boxes reach beyond the image" in out, out + err
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text("utf-8").splitlines()))
    assert list(rows[0]) == ["top", "left", "bottom", "right", "class", "score", "name", "given_class"]
    assert [row["name"] for row in rows] == ["ä", "b"] and [row["given_class"] for row in rows] == ["x", ""]
    content = json.loads((tmp_path / "b.json").read_text("utf-8"))
    assert content[0]["box"] == [4, 8, 23, 31] and content[0]["name"] == "ä"
    again = list(csv.DictReader((tmp_path / "c.csv").read_text("utf-8").splitlines()))
    assert [row["name"] for row in again] == ["ä", "b"] and again[0]["class"] == rows[0]["class"]
    assert "x" in again[0].values()


def test_what_is_nested_is_kept_as_text(tmp_path):
    scores = np.eye(2, 3)
    boxes = Boxes(np.array([BOX[0], [1, 2, 3, 4]]), ({"a": {"b": [1]}, "box": 1}, {"c": None}))
    found = BoxScores(boxes.boxes, scores, ("x", "y", "z"), further=boxes.further)
    rows = list(csv.DictReader(found.save(tmp_path / "a.csv").read_text().splitlines()))
    assert rows[0]["a"] == '{"b": [1]}' and rows[0]["given_box"] == "1" and rows[1]["c"] == rows[1]["a"] == ""
    content = json.loads(found.save(tmp_path / "a.json").read_text())
    assert content[0]["a"] == {"b": [1]} and content[0]["box"] == BOX[0] and content[1]["c"] is None


def test_what_is_written_can_be_read_again(tmp_path):
    further = ({"Class": 1, "SCORE": 2, "Score": 3, "given_class": 4, "Top": 5, "width": 6, "height": 9, "straße": 7},)
    found = BoxScores(np.array(BOX), np.eye(1, 3), ("x", "y", "z"), further=further)
    for name in ("a.csv", "a.json"):
        again = read_boxes(found.save(tmp_path / name))
        np.testing.assert_array_equal(again, BOX)
        values = [str(value) for key, value in again.further[0].items() if key not in ("class", "score")]
        assert values == ["1", "2", "3", "4", "5", "6", "9", "7"]
    (tmp_path / "b.json").write_text('[{"box": [4, 8, 23, 31], "far": 1e999}]')
    with pytest.raises(InputError, match="broken .1e999 is too large"):
        read_boxes(tmp_path / "b.json")
