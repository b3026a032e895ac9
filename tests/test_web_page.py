"""The page for browsers in Chromium, beside a scan: winners, objects, what a cell looks at, drawing; no other request.

It needs ONNX Runtime's WebAssembly: ZOO_ONNXRUNTIME_WEB names the folder of an unpacked npm package onnxruntime-web.
"""

import os
import re

import discs
import numpy as np
import pytest
from PIL import Image
from test_viewer import browser, settled  # noqa: F401
from test_web_modules import Quiet, serve  # noqa: F401

import zoo
from zoo.exporting.web_page import WebRuntime
from zoo.scores import relative_error
from zoo.shipping import fixed_images


class Isolated(Quiet):
    """A server whose pages are isolated from other origins, so that threads may share memory."""

    def end_headers(self):
        """Say so."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


@pytest.fixture(scope="module")
def runtime():
    folder = os.environ.get("ZOO_ONNXRUNTIME_WEB")
    if not folder:
        pytest.skip("ZOO_ONNXRUNTIME_WEB names no folder of an unpacked npm package onnxruntime-web")
    return WebRuntime.at(folder)


@pytest.fixture(scope="module")
def digits(runtime, tmp_path_factory):
    """The converted net of digits, and its page."""
    fcn = zoo.convolutionalize(zoo.load("nin_mnist_valid"))
    return fcn, zoo.export(fcn, tmp_path_factory.mktemp("digits") / "page", format="web", runtime=runtime)


@pytest.fixture
def open_page(browser, serve):  # noqa: F811
    """Open a page, and see that nothing is asked for elsewhere, and no script fails."""
    problems, contexts = [], []

    def get(folder, handler=Quiet, **viewport):
        context = browser.new_context(viewport={"width": 1100, "height": 700} | viewport)
        contexts.append(context)
        address, seen = serve(folder, handler), []
        context.on("request", lambda request: seen.append(request.url))
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type in ("error", "warning") and problems.append(message.text))
        page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
        page.add_init_script("addEventListener('scanned', (event) => { window.last = event.detail; }, true)")
        page.goto(address)
        page.wait_for_selector("body[data-ready=yes]")
        wait(page, "window.last")
        # Of the page's worker too.
        assert any(url.endswith("/model.onnx") for url in seen) and any(url.endswith(".wasm") for url in seen)
        problems.extend(url for url in seen if not url.startswith((address, "data:")))
        return page

    yield get
    for context in contexts:
        context.close()
    assert not problems


def wait(page, condition):
    """Wait until it is true; the page's policy forbids scripts made of text, by which Playwright would wait."""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"{condition}: {page.inner_text('#status')}")


DROP = """(content) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(content)], "dropped.png"));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""
UNNAMED = """[...document.querySelectorAll("input, select, button, canvas")].filter((each) => !(each.labels?.length ||
  each.ariaLabel || each.getAttribute("aria-labelledby") || each.textContent.trim())).map((each) => each.outerHTML)"""
ANSWER = """() => { const { scores, winners, strength, objects, grid, name } = window.last;
  return { scores: [...scores], winners: [...winners], shape: grid.shape, objects, name }; }"""
SIZE = "[window.last.picture.height, window.last.picture.width]"
PICTURE = """() => { const { picture } = window.last, { width, height } = picture;
  return [height, width, ...picture.getContext("2d").getImageData(0, 0, width, height).data]; }"""


def opened(page, path):
    """Open a file on the page, and wait for its answer."""
    page.evaluate("window.last = null")
    page.set_input_files("#file", path)
    wait(page, "window.last")
    return page.evaluate(ANSWER)


def same_as_a_scan(seen, score_map):
    scores = np.array(seen["scores"], np.float32).reshape(score_map.scores.shape)
    assert relative_error(scores, score_map.scores) <= 1e-5
    winners = np.array(seen["winners"]).reshape(seen["shape"])
    np.testing.assert_array_equal(winners, score_map.classes_of(score_map.scores))
    assert len(np.unique(winners)) > 2


def page_of_digits(path=None):
    """Some digits on black, 24 pixels each: (H, W) uint8."""
    pixels = np.zeros((130, 170), np.uint8)
    for number, digit in enumerate(fixed_images(8, 8, 1)[:12]):
        large = np.asarray(Image.fromarray(digit[..., 0]).resize((24, 24), Image.Resampling.BICUBIC))
        top, left = 6 + 42 * (number // 4) + 3 * number % 7, 8 + 41 * (number % 4)
        pixels[top : top + 24, left : left + 24] = large
    if path is not None:
        Image.fromarray(pixels).save(path)
    return pixels


def at(page, row, column):
    """Where a pixel of the image, which is shown whole, lies on the page."""
    box, (height, width) = page.locator("#map").bounding_box(), page.evaluate(SIZE)
    zoom = min(box["width"] / width, box["height"] / height)
    left, top = (box["width"] - width * zoom) / 2, (box["height"] - height * zoom) / 2
    return box["x"] + left + (column + 0.5) * zoom, box["y"] + top + (row + 0.5) * zoom


def rows(page, table):
    """The texts of the cells of a table's rows."""
    code = (
        "(id) => [...document.querySelectorAll(`#${id} tr`)].map((row) => [...row.cells].map((cell) => cell.innerText))"
    )
    return page.evaluate(code, table)


def read_out(page):
    return dict(rows(page, "read"))


def test_every_cell_has_the_winner_of_a_scan_and_shows_what_it_looks_at(digits, open_page, tmp_path):
    fcn, folder = digits
    pixels = page_of_digits(tmp_path / "digits.png")
    score_map = zoo.scan(fcn, pixels)
    page = open_page(folder)
    seen = opened(page, tmp_path / "digits.png")
    same_as_a_scan(seen, score_map)
    assert seen["objects"] is None and "digits.png: 130 x 170 pixels" in page.inner_text("#status")
    shares, _ = score_map.wins()
    assert dict(rows(page, "legend")) == {
        name: f"{100 * count / shares.sum():.1f} %"
        for name, count in zip(score_map.class_names, shares, strict=True)
        if count
    }
    cell = (3, 20)
    top, left, bottom, right = score_map.cell_box(*cell)
    page.mouse.click(*at(page, (top + bottom) // 2, (left + right) // 2))
    wanted = {"row, column": "3, 20", "crop, pixel rows": f"{top}:{bottom}", "crop, pixel columns": f"{left}:{right}"}
    assert read_out(page) == wanted
    settled(page)
    frame, begin, end = (
        page.locator("#crop").bounding_box(),
        at(page, top - 0.5, left - 0.5),
        at(page, bottom - 0.5, right - 0.5),
    )
    np.testing.assert_allclose([frame["x"], frame["y"]], begin, atol=1)
    np.testing.assert_allclose([frame["width"], frame["height"]], np.subtract(end, begin), atol=1)
    enlarged = page.evaluate(
        "(() => { const { width, height } = document.getElementById('window'); return [width, height,"
        " ...document.getElementById('window').getContext('2d').getImageData(0, 0, width, height).data]; })()"
    )
    by = enlarged[0] // 28
    crop = np.reshape(enlarged[2:], (enlarged[1], enlarged[0], 4))[by // 2 :: by, by // 2 :: by, 0]
    np.testing.assert_array_equal(crop, pixels[top:bottom, left:right])
    bars = [float(row[-1]) for row in rows(page, "bars")]
    np.testing.assert_allclose(bars, score_map.probabilities[cell], atol=1e-4)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    assert read_out(page)["row, column"] == "4, 19"
    page.select_option("#shown", label="3")
    assert page.locator("#ramp").is_visible() and "probability" in page.inner_text("#legend")


def test_drawing_changes_the_map_which_is_that_of_a_scan(digits, open_page):
    fcn, folder = digits
    page = open_page(folder)
    height, width = page.evaluate(SIZE)
    assert (height, width) == (4 * 28, 6 * 28) and page.is_checked("#draw")
    before = page.evaluate(ANSWER)
    assert len(set(before["winners"])) == 1
    # A seven.
    page.mouse.move(*at(page, 40, 70))
    page.mouse.down()
    for row, column in ((40, 86), (60, 76)):
        page.mouse.move(*at(page, row, column), steps=4)
    page.mouse.up()
    wait(page, "document.getElementById('status').textContent.includes('scanned')")
    wait(page, "new Set(window.last.winners).size > 2")
    page.wait_for_timeout(300)  # until the last stroke is scanned
    pixels = np.reshape(page.evaluate(PICTURE)[2:], (height, width, 4)).astype(np.uint8)
    assert (pixels[..., 3] == 255).all() and pixels[..., 0].max() == 255
    score_map = zoo.scan(fcn, pixels[..., 0])
    same_as_a_scan(page.evaluate(ANSWER), score_map)
    row, column = (cells[pixel] for cells, pixel in zip(score_map.cells_of_pixels(), (50, 78), strict=True))
    assert score_map.classes_of(score_map.scores)[row, column] == 7
    page.click("#blank")
    wait(page, "new Set(window.last.winners).size === 1")


@pytest.mark.parametrize("scale", [None, 0.5])
@pytest.mark.filterwarnings("ignore:.*taken at scale 0.5")
def test_objects_are_those_of_a_scan(scale, runtime, open_page, tmp_path):
    """In an image of several tiles, at the model's scale; and a click on one chooses its cell."""
    fcn = zoo.convolutionalize(discs.model(scale=scale))
    generator, (height, width) = np.random.default_rng(0), (100, 1200) if scale is None else (200, 400)
    places = [(discs.RED if n % 2 else discs.BLUE, *generator.uniform(0, (height, width)), 9) for n in range(40)]
    # Discs alone have peaks at two cells that are equal but for rounding.
    pixels = discs.picture((height, width), places) + generator.integers(-20, 20, (height, width, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "discs.png")
    score_map = zoo.scan(fcn, tmp_path / "discs.png")
    folder = zoo.export(
        fcn, tmp_path / "page", format="web", runtime=runtime, images=[np.asarray(Image.open(tmp_path / "discs.png"))]
    )
    page = open_page(folder)
    seen, found = page.evaluate(ANSWER), score_map.objects()
    assert seen["name"] == "image.png" and not page.is_checked("#draw")
    assert ("tiles" in page.inner_text("#status")) == (scale is None)
    winners = np.array(seen["winners"]).reshape(seen["shape"])
    np.testing.assert_array_equal(winners, score_map.classes_of(score_map.scores))
    assert len(found) > 10 and len(np.unique(winners)) == 3
    # Scores that are equal but for rounding may change places.
    ours = sorted(seen["objects"], key=lambda each: each["cell"])
    order = np.lexsort(found.cells.T[::-1])
    assert [each["cell"] for each in ours] == found.cells[order].tolist()
    assert [each["index"] for each in ours] == found.classes[order].tolist()
    np.testing.assert_allclose([[each["y"], each["x"]] for each in ours], found.centres[order], atol=1e-3)
    np.testing.assert_allclose([each["score"] for each in ours], found.scores[order], atol=1e-5)
    counts = dict(rows(page, "counts"))
    assert counts == {name: str(count) for name, count in score_map.counts_of(found).items()}
    page.locator("#list button").nth(2).click()
    third = seen["objects"][2]
    assert read_out(page)["row, column"] == ", ".join(map(str, third["cell"]))
    assert read_out(page)["class"] == score_map.class_names[third["index"]]
    outer = discs.WINDOW / 2 / (scale or 1)
    assert f"No window has its middle in the outer {outer:g} pixels" in page.inner_text("#notes")
    if scale is not None:
        assert "scale 0.5, as in training" in page.inner_text("#notes")
    # Another image in the midst of a scan.
    page.set_input_files("#file", tmp_path / "discs.png")
    page.click("#blank")
    wait(page, "window.last.name === 'Blank canvas'")
    assert page.evaluate(ANSWER)["shape"] != seen["shape"] and "Blank canvas" in page.inner_text("#status")


def test_a_file_that_cannot_be_taken_is_refused_in_a_line(digits, open_page, tmp_path):
    page = open_page(digits[1])
    content = np.zeros((40, 40, 3), np.uint8)
    content[3, 4] = (9, 0, 0)
    Image.fromarray(content).save(tmp_path / "colours.png")
    Image.fromarray(content[:20]).convert("L").save(tmp_path / "small.png")
    for name, words in (
        ("colours.png", "colours.png has 3 channels in colour; accepted: 1, a grey image."),
        ("small.png", "The image has 20 x 40 pixels (height x width); accepted: at least one window of 28 x 28."),
    ):
        page.set_input_files("#file", tmp_path / name)
        wait(page, f"document.getElementById('status').textContent === {words!r}")
        assert page.locator("#status.failed").is_visible() and page.inner_text("#legend") == ""
    page_of_digits(tmp_path / "digits.png")
    opened(page, tmp_path / "digits.png")
    assert not page.locator("#status.failed").count()


def test_a_dropped_image_is_scanned_by_several_threads_where_pages_are_isolated(digits, open_page, tmp_path):
    fcn, folder = digits
    page = open_page(folder, Isolated)
    pixels = page_of_digits(tmp_path / "digits.png")
    content = list((tmp_path / "digits.png").read_bytes())
    page.evaluate("window.last = null")
    page.evaluate(DROP, content)
    wait(page, "window.last?.name === 'dropped.png'")
    same_as_a_scan(page.evaluate(ANSWER), zoo.scan(fcn, pixels))
    threads = page.evaluate("navigator.hardwareConcurrency >> 1")
    assert ("one thread" if threads < 2 else f"{threads} threads") in page.inner_text("#notes")
    assert page.evaluate("crossOriginIsolated")


def test_a_small_window_of_the_browser_has_all_of_it(digits, open_page):
    """As at a zoom of 200 %: nothing is cut off at the side, and everything has a name."""
    page = open_page(digits[1], width=550, height=380)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(UNNAMED) == []
    names = [re.sub(r"\s+", " ", each.inner_text()).strip() for each in page.locator("header label:visible").all()]
    assert {"draw", "erase", "Brush 2.8", "Opacity 0.65"} <= set(names)
