"""The viewer without a mouse, at a zoom of 200 %, and by the rules of axe-core, in Chromium.

The rules need axe-core: ZOO_AXE_CORE names the folder of an unpacked npm package axe-core.
"""

import dataclasses
import os
import shutil
from pathlib import Path

import counters
import numpy as np
import pytest
from test_viewer import browser, open_page, random_view, read_out, score_map, settled, shown_image
from test_web_modules import serve

from zoo.exporting import web_page
from zoo.scanning.overlay import palette, pattern

__all__ = ["browser", "open_page", "serve"]
pytestmark = pytest.mark.extended
# What a user can reach with the tabulator, in the order of the page.
REACHED = """[...document.querySelectorAll("select, input, button, [tabindex='0']")].filter((each) =>
  each.checkVisibility() && !each.disabled && (each.type !== "radio" || each.checked)).map((each) => each.outerHTML)"""
NAME = """(() => { const each = document.activeElement;
  return (each.ariaLabel ?? each.labels?.[0]?.innerText ?? each.innerText).trim(); })()"""
# Whether an element that has the focus shows it: its outline, or the ring of the map.
RING = """(() => { const each = document.activeElement, map = each.id === "map";
  const style = getComputedStyle(map ? each.parentElement : each, map ? "::after" : null);
  return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1; })()"""
# Things of the page that lie over one another, by two.
OVERLAPPING = """(() => {
  const all = [...document.querySelectorAll("header > *, header label > *, header span > *, main, aside")];
  const boxes = all.filter((each) => each.checkVisibility()).map((each) => [each, each.getBoundingClientRect()]);
  const over = ([a, at], [b, other]) => !a.contains(b) && !b.contains(a) &&
    Math.min(at.right, other.right) - Math.max(at.left, other.left) > 1 &&
    Math.min(at.bottom, other.bottom) - Math.max(at.top, other.top) > 1;
  const pairs = boxes.flatMap((one, i) => boxes.slice(i + 1).map((other) => [one, other]));
  return pairs.filter(([one, other]) => over(one, other)).map((two) => two.map(([each]) => each.outerHTML));
})()"""
# Whether the answers are scrolled to their end.
AT_END = """(() => { const { scrollTop, clientHeight, scrollHeight } = document.querySelector("aside");
  return scrollTop > 0 && scrollTop + clientHeight >= scrollHeight - 1; })()"""


def blood_cells():
    """A map as of a smear: a background, three classes, and objects."""
    names = ("Platelets", "RBC", "WBC", "background")
    scores = dataclasses.replace(score_map(names=names), background="background")
    scores.scores[...] = 9 * np.eye(4)[3]
    for row, column, index in ((4, 5, 1), (4, 20, 1), (12, 25, 0), (13, 8, 2)):
        scores.scores[row, column] = 8 * np.eye(4)[index]
    return scores, np.full((120, 160, 3), (215, 190, 195), np.uint8)


def digits():
    """A map as of a canvas: ten classes, which stand out at some places of a black image."""
    scores, view = score_map(names=tuple("0123456789")), np.zeros((120, 160, 3), np.uint8)
    scores.scores[...] *= 0.01
    for digit in range(10):
        row, column = 2 + 8 * (digit // 5), 3 + 7 * (digit % 5)
        scores.scores[row : row + 4, column : column + 4, digit] = 9
        view[6 * row + 4 : 6 * row + 20, 4 * column + 7 : 4 * column + 17] = 255
    return scores, view


SCANS = {
    "blood cells": blood_cells,
    "counts": lambda: (counters.plain_map(pixel_size=(0.5, 0.5)), random_view()),
    "digits": digits,
    "many classes": lambda: (score_map(names=tuple(f"class {n}" for n in range(70))), random_view()),
}


@pytest.fixture(scope="module")
def axe():
    """What runs the rules."""
    folder = os.environ.get("ZOO_AXE_CORE")
    if not folder:
        pytest.skip("ZOO_AXE_CORE names no folder of an unpacked npm package axe-core")
    return Path(folder) / "axe.min.js"


# Those that have controls of their own.
OF_CONTROLS = pytest.mark.parametrize("page", ["blood cells", "counts"], indirect=True)


@pytest.fixture(params=SCANS)
def page(request, open_page):
    """The page of a scan, with all that it has opened."""
    scores, view = SCANS[request.param]()
    page = open_page(scores, view, image_name=f"{request.param.replace(' ', '_')}.png")
    if request.param == "blood cells":
        page.evaluate("$('correcting').click()")  # not by the mouse, from where the tabulator would go on
    return page


def violations(page):
    found = page.evaluate("axe.run(document, { rules: { 'target-size': { enabled: true } } })")
    assert len(found["passes"]) > 20  # rules that looked at something
    return [
        (each["id"], node["html"], node["failureSummary"]) for each in found["violations"] for node in each["nodes"]
    ]


def test_no_rule_of_axe_is_violated(page, axe):
    page.add_script_tag(path=axe)
    assert violations(page) == []
    page.focus("#map")
    page.keyboard.press("ArrowRight")
    if page.locator("#shown option").count() > 3:
        page.select_option("#shown", "2")
    settled(page)
    assert violations(page) == []
    page.set_viewport_size({"width": 640, "height": 400})
    settled(page)
    assert violations(page) == []
    # That the rules can fail.
    page.evaluate("document.querySelector('#shown').parentElement.replaceWith(document.querySelector('#shown'))")
    page.add_style_tag(content="header { color: #bbb; }")
    assert {rule for rule, *_ in violations(page)} >= {"select-name", "color-contrast"}


@OF_CONTROLS
def test_the_tabulator_reaches_everything_in_order_and_it_shows(page):
    wanted, seen = page.evaluate(REACHED), []
    for _ in wanted:
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.outerHTML"))
        assert page.evaluate(NAME) and page.evaluate(RING), seen[-1]
    assert seen == wanted and len(wanted) >= 9
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.outerHTML") == wanted[-2]


@OF_CONTROLS
def test_the_map_is_moved_zoomed_and_read_and_the_answers_are_scrolled_by_keyboard(page):
    page.set_viewport_size({"width": 640, "height": 400})
    page.focus("#map")
    page.keyboard.press("ArrowDown")
    cell = page.evaluate("chosen")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("chosen") == [cell[0], cell[1] - 1] and len(read_out(page)) > 3
    assert page.locator("#read[aria-live=polite][aria-atomic=true] tr").count() == len(read_out(page))
    place, zoom = page.evaluate("[top_, left]"), page.evaluate("zoom")
    for key, by in (("ArrowDown", (1, 0)), ("ArrowRight", (0, 1)), ("ArrowUp", (-1, 0)), ("ArrowLeft", (0, -1))):
        page.keyboard.press(f"Shift+{key}")
        moved = page.evaluate("[top_, left]")
        assert np.sign(np.subtract(moved, place).round(9)).tolist() == list(by)
        place = moved
    page.keyboard.press("+")
    assert page.evaluate("zoom") == 2 * zoom
    page.focus("#fit")
    page.keyboard.press("Enter")
    whole = page.evaluate("Math.min(canvas.width / width, canvas.height / height)")
    assert page.evaluate("zoom") == pytest.approx(whole)
    page.focus("aside")
    page.keyboard.press("End")
    # The page's policy forbids scripts made of text, by which Playwright would wait.
    assert any(page.evaluate(AT_END) or page.wait_for_timeout(20) for _ in range(100))


# The controls of the header whose middle something else covers.
COVERED = """[...document.querySelectorAll('header button, header input, header select')].filter(each => {
  if (!each.offsetParent) return false;
  const { x, y, width, height } = each.getBoundingClientRect();
  return document.elementFromPoint(x + width / 2, y + height / 2) !== each;
}).map(each => each.outerHTML)"""


@pytest.mark.parametrize("page", ["blood cells"], indirect=True)
def test_the_header_s_rows_are_seen_at_any_width_and_when_a_part_grows(page):
    for width in range(620, 1020, 20):
        page.set_viewport_size({"width": width, "height": 600})
        page.reload()
        page.wait_for_selector("body[data-ready=yes]")
        assert page.evaluate(COVERED) == [], width
    # As wide as a row of its own.
    page.evaluate("$('zoom').style.display = 'inline-block'; $('zoom').style.minWidth = '900px'")
    assert any(page.evaluate(COVERED) == [] or page.wait_for_timeout(20) for _ in range(100))


@OF_CONTROLS
def test_nothing_is_cut_off_or_covered_as_at_a_zoom_of_200_and_400_percent(page):
    for size in ((1280, 800), (640, 400), (320, 400)):
        check_size(page, size)


def check_size(page, size):
    page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    aside, stage = (page.locator(each).bounding_box() for each in ("aside", "#stage"))
    assert page.locator("aside").evaluate("(aside) => aside.scrollWidth <= aside.clientWidth")
    assert page.evaluate(OVERLAPPING) == []
    assert min(stage["height"], aside["height"]) >= 100 and stage["width"] >= 300
    for control in page.locator("header :is(select, input, button):visible").all():
        box = control.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= size[0]
    if size[0] >= 640:
        assert aside["y"] + aside["height"] <= size[1]
    # What lies below is scrolled into sight.
    page.locator("#notes").scroll_into_view_if_needed()
    box = page.locator("#notes").bounding_box()
    assert box["y"] < size[1]


@pytest.mark.parametrize("zoom", [1, 3])
def test_repeated_colours_have_lines_on_map_and_legend(open_page, zoom):
    scores, view = score_map(names=tuple(map(str, range(23)))), np.full((120, 160, 3), 255, np.uint8)
    scores.scores[...] = 9 * np.eye(23)[[12]]
    scores.scores[:, 18:] = 9 * np.eye(23)[2]
    page = open_page(scores, view)
    page.fill("#opacity", "1")
    seen = shown_image(page, 120, 160, zoom)
    for column, index in ((4, 12), (30, 2)):
        top, left, bottom, right = (zoom * each for each in page.evaluate(f"ownOf([12, {column}])"))
        weight = page.evaluate(f"weights[shownCell(12, {column})]")
        y, x = np.mgrid[top:bottom, left:right]
        is_line = ((x + y) % 8 < 2) & (index == 12)
        over = np.where(is_line[..., None], 0, 255 * palette(23)[index])
        assert weight > 0.2 and is_line.any() == (index == 12)
        np.testing.assert_allclose(seen[top:bottom, left:right], 255 * (1 - weight) + over * weight, atol=1)
    for row in page.locator("#legend tr").all():
        name = row.locator("td").first.inner_text()
        assert row.locator(".swatch").get_attribute("data-pattern") == {"12": "1", "2": "0"}[name]


# Whether a pixel of the screen lies on a line of a pattern.
LINES = {
    0: lambda x, y: np.zeros(x.shape, bool),
    1: lambda x, y: (x + y) % 8 < 2,
    2: lambda x, y: (x - y) % 8 < 2,
    3: lambda x, y: y % 8 < 2,
    4: lambda x, y: x % 8 < 2,
    5: lambda x, y: ((x + y) % 8 < 2) | ((x - y) % 8 < 2),
}
SHOW = """async ([colours, patterns, winners, zoom, left, top]) => {
  const { View } = await import("./view.js"), { newCanvas } = await import("./pictures.js");
  const about = { classNames: colours.map(String), colours, patterns, opacity: 1, findObjects: false, channels: 1 };
  const view = new View({ ...about, mark: 0.2 });
  [view.canvas.width, view.canvas.height] = [96, 64];
  view.show(newCanvas(32, 48), true);
  const grid = { shape: [2, 3], edges: [[0, 16, 32], [0, 16, 32, 48]] };
  view.take({ grid, winners, strength: winners.map(() => 1), objects: null });
  [view.zoom, view.left, view.top] = [zoom, left, top];
  view.redraw();
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return [...view.context.getImageData(0, 0, 96, 64).data];
}"""


@pytest.mark.parametrize(("zoom", "left", "top"), [(1, 0, 0), (2, 3, 1)])
def test_the_page_of_exports_has_the_same_lines(browser, serve, tmp_path, zoom, left, top):
    for file in web_page._PAGE.glob("*.js"):
        shutil.copyfile(file, tmp_path / file.name)
    (tmp_path / "index.html").write_text(
        "<!doctype html><title>view</title><canvas id=map></canvas><i id=own></i><i id=crop></i><i id=zoom></i>"
    )
    page, winners = browser.new_page(), np.array([[3, 12, 25], [31, 48, 59]])
    page.goto(serve(tmp_path))
    colours = 255 * palette(60)
    patterns = [*map(pattern, range(60))]
    seen = page.evaluate(SHOW, [colours.tolist(), patterns, winners.ravel().tolist(), zoom, left, top])
    page.close()
    seen, (y, x) = np.reshape(seen, (64, 96, 4)), np.mgrid[: zoom * (32 - top), : zoom * (48 - left)][:, :64, :96]
    index = winners[(y // zoom + top) // 16, (x // zoom + left) // 16]
    on_line = np.select([index == each for each in winners.flat],
                        [LINES[patterns[each]](x + zoom * left, y + zoom * top) for each in winners.flat])  # fmt: skip
    wanted = np.where(on_line[..., None], 0, np.round(colours[index]))
    np.testing.assert_allclose(seen[: y.shape[0], : y.shape[1], :3], wanted, atol=1)
    assert 0.1 < on_line.mean() < 0.5
