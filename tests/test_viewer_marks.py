"""Marks in the viewer: clicked, chosen, undone, saved and loaded, in a browser."""

import csv
import dataclasses

import numpy as np
import pytest
from test_viewer import NAMES, at, browser, open_page, random_view, score_map, settled, shot

from zoo.scanning.overlay import palette

__all__ = ["browser", "open_page"]
IMAGE = 'sub, "cell".png'
HEADER = ["image", "x", "y", "class"]


@pytest.fixture
def page(open_page):
    """A page with an object of class b and two of c, and its objects' places (y, x)."""
    scores = dataclasses.replace(score_map(), background="a")
    scores.scores[...] = 9 * np.eye(7)[0]
    for cell, index, score in (((4, 5), 1, 9), ((4, 20), 2, 8), ((12, 25), 2, 7)):
        scores.scores[cell] = score * np.eye(7)[index]
    page = open_page(scores, np.full((120, 160, 3), 128, np.uint8), image_name=IMAGE)
    return page, scores.objects().centres


def saved(page, tmp_path):
    """The rows of the file that the page saves."""
    with page.expect_download() as started:
        page.click("#save")
    assert started.value.suggested_filename == "marks.csv"
    started.value.save_as(tmp_path / "marks.csv")
    with (tmp_path / "marks.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def place(row):
    return float(row[2]), float(row[1])


def click(page, y, x, **options):
    """Click at a place in continuous pixels of the image."""
    page.mouse.click(*at(page, y - 0.5, x - 0.5), **options)


def test_wrong_and_missed_objects_are_marked_undone_saved_and_loaded(page, tmp_path):
    page, objects = page
    click(page, *objects[0])
    assert not page.is_visible("#correct") and page.evaluate("corrections.length") == 0
    page.check("#correcting")
    click(page, *(objects[0] + 1))
    page.get_by_label(f"{NAMES[6]} 6").check()
    click(page, 100.25, 20.5)
    page.keyboard.press("2")
    click(page, *objects[1])
    assert "Marked c at" in page.inner_text("#marked") and "3 marks" in page.inner_text("#marked")
    # A drag is no click, nor is what lies beside the image.
    page.mouse.move(*at(page, 60, 60))
    page.mouse.down()
    page.mouse.move(*at(page, 80, 90), steps=3)
    page.mouse.up()
    click(page, -3, 50)
    for _ in range(2):
        page.keyboard.press("+")
    rows = saved(page, tmp_path)
    assert rows[0] == HEADER and all("." in row[1] and "." in row[2] for row in rows[1:])
    assert [(row[0], row[3]) for row in rows[1:]] == [(IMAGE, ""), (IMAGE, NAMES[6]), (IMAGE, "c")]
    np.testing.assert_allclose(place(rows[1]), objects[0], atol=1e-3)
    np.testing.assert_allclose(place(rows[2]), (100.25, 20.5), atol=1 / page.evaluate("zoom"))
    np.testing.assert_allclose(place(rows[3]), objects[1], atol=1e-3)
    # A mark's class is changed, the same again takes it away, and both are undone.
    page.keyboard.press("0")
    page.click("#fit")
    settled(page)
    for count, last in ((3, ""), (2, NAMES[6])):
        click(page, *objects[1])
        assert [len(page.evaluate("corrections")), saved(page, tmp_path)[-1][3]] == [count, last]
    page.click("#undo")
    page.keyboard.press("Backspace")
    assert saved(page, tmp_path) == rows
    with page.expect_file_chooser() as asked:
        page.click("#load")
    (tmp_path / "merged.csv").write_text(
        '\ufeffclass,IMAGE,y,x\r\n,other.png,1.5,2.5\r\n"c","x/sub, ""cell"".png",10.0,20.0\r\n', encoding="utf-8"
    )
    asked.value.set_files(tmp_path / "merged.csv")
    page.locator("#marked").filter(has_text="Loaded").wait_for()
    assert page.inner_text("#marked") == "Loaded merged.csv. 1 mark, and 1 of other images"
    click(page, 30, 30)
    first, second, third, fourth = saved(page, tmp_path)
    assert [first, second, third] == [HEADER, ["other.png", "2.5", "1.5", ""], [IMAGE, "20.000", "10.000", "c"]]
    assert fourth[3] == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image,x,y\na,1.5,1.5\n", "no column class"),
        ("", "no column image"),
        ('image,x,y,class\n"a,1.5,1.5,b\n', "quotes that do not end"),
        (f'image,x,y,class\n"{IMAGE.replace(chr(34), 2 * chr(34))}",1.5,1.5,dics\n', "unknown class dics"),
        (f'image,x,y,class\n"{IMAGE.replace(chr(34), 2 * chr(34))}",1.5,,b\n', "a mark without a place"),
    ],
)
def test_a_file_that_is_none_is_refused_and_marks_are_kept(page, tmp_path, text, problem):
    page, objects = page
    page.check("#correcting")
    click(page, *objects[0])
    (tmp_path / "a.csv").write_text(text)
    page.set_input_files("#file", tmp_path / "a.csv")
    page.locator("#marked").filter(has_text="not loaded").wait_for()
    assert page.inner_text("#marked") == f"a.csv not loaded: {problem}. 1 mark"


def test_marks_are_drawn_where_they_are_at_every_zoom(page):
    page, objects = page
    page.check("#correcting")
    page.keyboard.press("1")
    click(page, 80.5, 100.5)
    page.keyboard.press("0")
    click(page, *objects[2])
    page.fill("#opacity", "0")
    for press in ("-", "+", "+"):
        page.keyboard.press(press)
        settled(page)
        picture = shot(page)
        top, left, zoom = page.evaluate("[top_, left, zoom]")
        for (y, x), colour in (((80.5, 100.5), 255 * palette(7)[1]), (objects[2], (255, 255, 255))):
            row, column = (np.array([y, x]) - [top, left]) * zoom
            assert np.abs(picture[int(row), int(column)] - colour).max() <= 1


def test_marks_are_made_by_keyboard(page, tmp_path):
    page, objects = page
    page.focus("#correcting")
    page.keyboard.press("Space")
    assert page.is_visible("#correct")
    page.focus("#map")
    zoom = page.evaluate("zoom")
    page.keyboard.press("2")
    for _ in range(2):
        page.keyboard.press("n")
    assert page.inner_text("#marked").startswith("Object 2 of 3: c")
    page.keyboard.press("Shift+N")
    page.keyboard.press("Enter")
    assert page.evaluate("zoom") == zoom
    page.keyboard.press("0")
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    rows = saved(page, tmp_path)[1:]
    assert [row[3] for row in rows] == ["c", ""]
    np.testing.assert_allclose(place(rows[0]), objects[0], atol=1e-3)
    top, left, bottom, right = page.evaluate("ownOf(chosen)")
    assert place(rows[1]) == ((top + bottom) / 2, (left + right) / 2)
    name_of = "each => each.map((e) => e.ariaLabel ?? e.labels?.[0]?.innerText ?? e.innerText)"
    assert all(page.eval_on_selector_all("#correct button, #correct input", name_of))


def test_marks_are_made_by_touch(browser, page, tmp_path):
    page, objects = page
    page.check("#correcting")
    x, y = at(page, *(objects[0] - 0.5))
    session = page.context.new_cdp_session(page)
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    np.testing.assert_allclose(place(saved(page, tmp_path)[1]), objects[0], atol=1e-3)


def test_a_page_without_objects_has_nothing_to_correct(open_page):
    page = open_page(score_map(), random_view())
    assert not page.is_visible("#correct-mode")
