"""The viewer of a counter's map: the density by class, and its sum over a rectangle, against NumPy."""

import re

import counters
import numpy as np
import pytest
from test_viewer import at, browser, content_of, open_page, random_view, read_out, settled, shown_image  # noqa: F401

from zoo.scanning.density import counts_in
from zoo.scanning.viewer import view_of, write_viewer


def without(cells):
    """A map without some cells."""
    scanned = np.ones((19, 36), bool)
    scanned[cells] = False
    found = counters.plain_map(scanned=scanned, pixel_size=(0.5, 0.5))
    found.scores[cells] = np.nan
    return found


def told(page):
    """What the page says of the rectangle: the numbers by class, and width and height."""
    text = page.inner_text("#sum")
    number = r"(-?[0-9]+\.[0-9])"
    found = re.fullmatch(
        rf"about {number} red, large, {number} white, {number} c in (\d+) x (\d+) pixels: an estimate", text
    )
    return [float(each) for each in found.groups()[:3]], [int(each) for each in found.groups()[3:]]


def sums(found, box):
    return counts_in(found, found.scanned, np.array([box]))[0]


def drag(page, begin, end, keys=()):
    """Drag between corners of pixels, (row, column)."""
    for key in keys:
        page.keyboard.down(key)
    page.mouse.move(*at(page, begin[0] - 0.5, begin[1] - 0.5))
    page.mouse.down()
    page.mouse.move(*at(page, end[0] - 0.5, end[1] - 0.5), steps=5)
    page.mouse.up()
    for key in keys:
        page.keyboard.up(key)
    settled(page)


def test_a_page_of_counts_holds_them_and_no_scores_of_classes(tmp_path):
    found = counters.plain_map()
    content = content_of(write_viewer(found, random_view(), tmp_path / "a.html"))
    assert content["density"]["counts"] == list(found.counts().values()) and content["density"]["by"] == 1
    assert content["objects"] is None and content["winners"] == content["probable"] == ""
    assert content["density"]["approximate"] and content["density"]["unit"] == "objects per 6 x 4 pixels"


@pytest.mark.parametrize("class_index", [None, 2])
def test_pixels_have_the_colours_of_the_overlay(open_page, class_index):  # noqa: F811
    found, view = without(np.s_[2:6, 4:9]), random_view()
    page = open_page(found, view)
    if class_index is not None:
        page.select_option("#shown", str(class_index))
    wanted = found.overlay(view, class_index).astype(int)
    assert np.abs(shown_image(page, 120, 160, 1) - wanted).max() <= 1
    shown = page.evaluate("Number($('shown').value)")
    largest = np.nanmax(found.density[..., shown]) * 1e6 / (3 * 2)
    ends = page.locator("#legend .ends span").all_inner_texts()
    assert ends[:2] == ["0", "objects per mm²"] and float(ends[2]) == pytest.approx(largest, rel=5e-3)
    assert page.locator("#shown option").all_inner_texts() == list(found.class_names)
    rows = [each.split("\t") for each in page.inner_text("#counts").splitlines()]
    assert [(name, value) for name, value in rows] == [(n, f"about {c:.1f}") for n, c in found.counts().items()]
    assert "The counts are approximate: the window of 14 x 11 pixels" in page.text_content("#notes")


def test_a_rectangle_is_drawn_with_shift_and_summed_as_numpy_does(open_page):  # noqa: F811
    found = without(np.s_[2:6, 4:9])
    page = open_page(found, random_view())
    page.keyboard.press("0")
    settled(page)
    before = page.evaluate("[top_, left]")
    for begin, end in (((20, 30), (41, 52)), ((41, 90), (20, 30)), ((0, 0), (120, 160)), ((7, 5), (8, 6))):
        drag(page, begin, end, ["Shift"])
        box = (*np.minimum(begin, end), *np.maximum(begin, end))
        numbers, sides = told(page)
        assert sides == [box[3] - box[1], box[2] - box[0]]
        np.testing.assert_allclose(numbers, sums(found, box), atol=0.051)
        frame = page.locator("#rectangle").bounding_box()
        x, y = at(page, box[0] - 0.5, box[1] - 0.5)
        np.testing.assert_allclose([frame["x"], frame["y"]], [x, y], atol=0.6)
    assert page.evaluate("[top_, left]") == before
    drag(page, (0, 0), (120, 160), ["Shift"])
    np.testing.assert_allclose(told(page)[0], list(found.counts().values()), atol=0.051)
    exact = page.evaluate("sumsOver([20, 30, 41, 52])")
    np.testing.assert_allclose(exact, sums(found, (20, 30, 41, 52)), rtol=1e-6)
    # Without Shift the image moves, and the rectangle with it.
    drag(page, (40, 40), (60, 60))
    assert page.evaluate("[top_, left]") != before and page.evaluate("rectangle") == [0, 0, 120, 160]


def test_a_rectangle_is_drawn_by_touch_after_its_button(open_page):  # noqa: F811
    found = counters.plain_map()
    page = open_page(found, random_view())
    page.click("#draw")
    assert page.get_attribute("#draw", "aria-pressed") == "true"
    send = page.context.new_cdp_session(page).send
    for kind, place in (("touchStart", (10, 20)), ("touchMove", (40, 70)), ("touchMove", (60, 90)), ("touchEnd", None)):
        points = [] if place is None else [dict(zip("xy", at(page, place[0] - 0.5, place[1] - 0.5), strict=True))]
        send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    settled(page)
    np.testing.assert_allclose(told(page)[0], sums(found, (10, 20, 60, 90)), atol=0.051)
    page.click("#draw")
    assert page.get_attribute("#draw", "aria-pressed") == "false"


def test_a_rectangle_is_typed(open_page):  # noqa: F811
    found = counters.plain_map()
    page = open_page(found, random_view())
    zoom = page.evaluate("zoom")
    page.focus("#draw")
    for value in ("11", "20", "100", "31"):  # left, top, width, height
        page.keyboard.press("Tab")
        page.keyboard.type(value)
    np.testing.assert_allclose(told(page)[0], sums(found, (20, 11, 51, 111)), atol=0.051)
    assert told(page)[1] == [100, 31] and page.evaluate("zoom") == zoom
    page.keyboard.press("Backspace")
    page.keyboard.type("99")
    assert page.inner_text("#sum") == "A rectangle of whole pixels inside the image's 160 x 120 is accepted."
    assert page.locator("#rectangle").is_hidden()


def test_cells_in_squares_are_read_out_and_summed(open_page, monkeypatch):  # noqa: F811
    monkeypatch.setattr("zoo.scanning.density._KEPT", 4 * 7 * 12)
    found, image = counters.plain_map(), random_view(120, 160)
    view, factor = view_of(image, most=54)
    page = open_page(found, view, factor)
    assert "3 x 3 cells are shown as one, by their sum." in page.text_content("#notes")
    # From edge to edge of squares, the first of which begins at 1, 5.5.
    rows, columns = found.edges
    box = [float(each) for each in (rows[3], columns[6], rows[9], columns[30])]
    np.testing.assert_allclose(page.evaluate(f"sumsOver({box})"), sums(found, box), rtol=1e-6)
    np.testing.assert_allclose(page.evaluate("sumsOver([0, 0, 120, 160])"), list(found.counts().values()), rtol=1e-5)
    page.mouse.move(*at(page, 60, 70))
    texts = read_out(page)
    row, column = (cells[pixel] // 3 * 3 for cells, pixel in zip(found.cells_of_pixels(), (60, 70), strict=True))
    mean = found.density[row : row + 3, column : column + 3].mean((0, 1))
    assert texts[3] == ["objects per 6 x 4 pixels", ""]
    assert [name for name, _ in texts[4:]] == list(found.class_names)
    np.testing.assert_allclose([float(value) for _, value in texts[4:]], mean, rtol=6e-3)
