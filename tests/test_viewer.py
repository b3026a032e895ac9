import base64
import dataclasses
import io
import json
import os
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from zoo.errors import InputError
from zoo.network.geometry import Geometry
from zoo.scanning import viewer
from zoo.scanning.overlay import palette
from zoo.scanning.score_map import ScoreMap
from zoo.scanning.viewer import view_of, write_viewer

NAMES = tuple("abcdef") + ("</script><b>x",)


def placed(height, width):
    """Crops of 14 x 11 pixels, the first one beginning outside of the image: what a cell colours is off its centre."""
    return Geometry((14, 11), (6, 4), (14, 11), (-3, 2), (height, width), SimpleNamespace(axes=2), None)


def score_map(rows=19, columns=36, height=120, width=160, names=NAMES, outputs="logits", seed=0):
    scores = np.random.default_rng(seed).normal(0, 2, (rows, columns, len(names))).astype(np.float32)
    starts = (-3 + 6 * np.arange(rows), 2 + 4 * np.arange(columns))
    scanned = np.ones((rows, columns), bool)
    return ScoreMap(scores, placed(height, width), names, (height, width), starts, (14, 11), scanned, outputs)


def without(scores, cells, value=np.nan):
    """The map without some cells, whose scores are `value`."""
    scanned = scores.scanned.copy()
    scores.scores[cells], scanned[cells] = value, False
    return dataclasses.replace(scores, scanned=scanned)


def random_view(height=120, width=160, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def content_of(path):
    return json.loads(re.search(r'type="application/json" id="content">(.*?)</script>', path.read_text(), re.S)[1])


def numbers(text, *shape):
    return np.frombuffer(base64.b64decode(text), "<u2").reshape(shape)


def picture_of(content):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content["picture"].split(",")[1]))))


def test_the_page_holds_the_scores_and_nothing_from_elsewhere(tmp_path):
    scores, view = score_map(), random_view()
    path = write_viewer(scores, view, tmp_path / "viewer.html")
    assert os.listdir(tmp_path) == ["viewer.html"]
    content = content_of(path)
    np.testing.assert_array_equal(picture_of(content), view)
    assert content["cellsShown"] == [19, 36] and content["side"] == 1 and content["kept"] == 7
    np.testing.assert_array_equal(numbers(content["winners"], 19, 36), scores.scores.argmax(-1))
    highest = numbers(content["highest"], 19, 36, 7)
    probable = numbers(content["probable"], 19, 36, 7) / 65535
    exact = np.exp(scores.scores.astype(float)) / np.exp(scores.scores.astype(float)).sum(-1, keepdims=True)
    np.testing.assert_allclose(probable, np.take_along_axis(exact, highest.astype(int), -1), atol=1e-5)
    assert (np.diff(probable) <= 0).all()
    assert content["classNames"] == list(NAMES)
    text = path.read_text()
    assert not re.findall(r"https?:|<link|@import|url\(|src=", text)
    assert text.count("</script>") == 2


@pytest.mark.parametrize("value", [np.nan, 1e9])
def test_winners_of_cells_that_were_not_scanned(tmp_path, value):
    """`scanned` alone says which those are, in the page and in the overlay."""
    view, cells = random_view(), np.s_[2:6, 4:9]
    scores = without(score_map(), cells, value)
    content = content_of(write_viewer(scores, view, tmp_path / "a.html"))
    missing = numbers(content["winners"], 19, 36) == 65535
    np.testing.assert_array_equal(missing, ~scores.scanned)
    assert not numbers(content["strength"], 19, 36)[missing].any()
    rows, columns = scores.cells_of_pixels()
    grey = np.round(view.mean(-1, keepdims=True)).astype(int)
    for class_index in (None, 2):
        picture = scores.overlay(view, class_index).astype(int)
        hidden = np.isin(rows, range(2, 6))[:, None] & np.isin(columns, range(4, 9))
        assert abs(picture - grey)[hidden].max() <= 1


def test_too_many_cells_are_shown_in_squares_by_their_maximum(tmp_path, monkeypatch):
    scores = score_map()
    monkeypatch.setattr(viewer, "_SCORES_BYTES", 4 * (1 + 5) * 7 * 12)
    content = content_of(write_viewer(scores, random_view(), tmp_path / "a.html"))
    assert content["side"] == 3 and content["cellsShown"] == [7, 12]
    probabilities, stands = scores.probabilities, scores.standing_out(scores.scores)
    winners, strength = numbers(content["winners"], 7, 12), numbers(content["strength"], 7, 12) / 65535
    highest, probable = (numbers(content[key], 7, 12, 5) for key in ("highest", "probable"))
    for row, column in np.ndindex(7, 12):
        square = np.s_[3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
        assert strength[row, column] == pytest.approx(stands[square].max(), abs=1e-5)
        best = np.unravel_index(stands[square].argmax(), stands[square].shape)
        assert winners[row, column] == scores.scores[square][best].argmax()
        wanted = probabilities[square].max((0, 1))[highest[row, column]]
        np.testing.assert_allclose(probable[row, column] / 65535, wanted, atol=1e-5)


def test_of_many_classes_the_highest_are_kept(tmp_path, monkeypatch):
    names = tuple(map(str, range(50)))
    scores = score_map(names=names, outputs="sigmoid")
    scores.scores[...] = 1 / (1 + np.exp(-scores.scores))
    monkeypatch.setattr(viewer, "_SCORES_BYTES", 4 * (1 + 17) * 19 * 36 - 1)
    content = content_of(write_viewer(scores, random_view(), tmp_path / "a.html"))
    assert content["side"] == 1 and content["kept"] == 16
    wanted = np.sort(scores.scores, -1)[..., :-17:-1]
    np.testing.assert_allclose(numbers(content["probable"], 19, 36, 16) / 65535, wanted, atol=1e-5)


def test_a_large_view_is_coded_with_loss_or_shrunk(tmp_path, monkeypatch):
    smooth = np.repeat(np.arange(160, dtype=np.uint8)[None, :, None], 120, 0).repeat(3, -1)
    monkeypatch.setattr(viewer, "_PICTURE_BYTES", 1800)
    noisy = smooth + np.random.default_rng(0).integers(0, 2, smooth.shape).astype(np.uint8)
    content = content_of(write_viewer(score_map(), noisy, tmp_path / "a.html"))
    assert "image/jpeg" in content["picture"]
    factor = content["factor"]
    picture = picture_of(content).astype(int)
    assert picture.shape == (-(-120 // factor), -(-160 // factor), 3)
    assert np.abs(picture - smooth[::factor, ::factor]).max() <= factor + 6


@pytest.mark.slow
def test_the_largest_file_is_below_20_mb(tmp_path):
    names = tuple(map(str, range(1000)))
    scores = score_map(300, 400, 1900, 1700, names)
    path = write_viewer(scores, random_view(1900, 1700), tmp_path / "a.html")
    assert 5e6 < path.stat().st_size < 20e6


@pytest.mark.parametrize("shape", [(50, 70, 3), (50, 70, 4), (50, 70, 1), (64, 50, 2)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_views_are_means_of_squares(shape, dtype):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    view, factor = view_of(image, most=20)
    assert factor == 4 and view.dtype == np.uint8 and view.shape == (-(-shape[0] // 4), -(-shape[1] // 4), 3)
    pixels = image[..., :3] if shape[2] >= 3 else image.mean(-1, keepdims=True)
    wanted = np.empty(view.shape)
    for row, column in np.ndindex(*view.shape[:2]):
        wanted[row, column] = pixels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4].mean((0, 1))
    if dtype == np.uint16:
        wanted = (wanted - wanted.min()) / (wanted.max() - wanted.min()) * 255
    np.testing.assert_allclose(view, wanted, atol=0.51)


def test_small_images_are_their_own_view():
    image = random_view()
    view, factor = view_of(image)
    assert factor == 1
    np.testing.assert_array_equal(view, image)


def test_wrong_views_and_names_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"view: received \(60, 80, 3\) of uint8; accepted: \(120, 160, 3\) of uint8"):
        write_viewer(score_map(), random_view(60, 80), tmp_path / "a.html")
    with pytest.raises(InputError, match="of float64; accepted"):
        write_viewer(score_map(), random_view().astype(float), tmp_path / "a.html")
    with pytest.raises(InputError, match="accepted: a name that ends in .html"):
        write_viewer(score_map(), random_view(), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("side", [1, 3])
def test_large_maps_are_read_part_by_part(tmp_path, monkeypatch, side):
    scores = score_map()
    scores = without(scores, np.s_[5:8, 3:6])
    if side == 3:
        monkeypatch.setattr(viewer, "_SCORES_BYTES", 4 * (1 + 5) * 7 * 12)
    whole = content_of(write_viewer(scores, random_view(), tmp_path / "a.html"))
    monkeypatch.setattr("zoo.scanning.score_map._SCORES_AT_ONCE", 100)
    assert max(block.size for *_, block, _ in scores.blocks(side)) <= side * 36 * 7
    assert content_of(write_viewer(scores, random_view(), tmp_path / "a.html")) == whole
    import zarr

    chunked = zarr.create_array(tmp_path / "a.zarr", shape=scores.scores.shape, chunks=(8, 10, 7), dtype=np.float32)
    chunked[:] = scores.scores
    inside = dataclasses.replace(scores, scores=chunked)
    assert max(block.size for *_, block, _ in inside.blocks(side)) <= (8 + side) * (10 + side) * 7
    assert content_of(write_viewer(inside, random_view(), tmp_path / "a.html")) == whole


def test_cells_that_were_not_scanned(open_page):
    scores, view = without(score_map(), np.s_[2:6, 4:9]), random_view()
    page = open_page(scores, view)
    wanted = scores.overlay(view).astype(int)
    assert np.abs(shown_image(page, 120, 160, 1) - wanted).max() <= 1
    rows, columns = (
        np.flatnonzero(cells == cell)[0] for cells, cell in zip(scores.cells_of_pixels(), (3, 5), strict=True)
    )
    page.mouse.move(*at(page, rows, columns))
    assert read_out(page)[-1] == ["not scanned", ""] and len(read_out(page)) == 4
    assert "not scanned\t20 of 684" in page.inner_text("#legend")


def test_objects_are_drawn_listed_and_hidden_by_class(open_page):
    scores, view = dataclasses.replace(score_map(), background="a"), np.full((120, 160, 3), (200, 100, 60), np.uint8)
    scores.scores[...] = 9 * np.eye(7)[0]
    for cell, index, score in (((4, 5), 1, 9), ((4, 20), 2, 8), ((12, 25), 2, 7)):
        scores.scores[cell] = score * np.eye(7)[index]
    page, found = open_page(scores, view), scores.objects()
    assert page.inner_text("#objects").splitlines()[:3] == ["b\t1", "c\t2", "d\t0"]
    assert page.inner_text("#legend").splitlines() == ["c\t0.3 %", "b\t0.1 %", "none\t99.6 %"]
    zoom, radius = page.evaluate("zoom"), page.evaluate("Math.min(Math.max(zoom * data.objects.radius, 3), 9)")

    def marked():
        """How far the canvas is from the class's colour at the right side of each object's circle."""
        places = (found.centres - page.evaluate("[top_, left]")) * zoom + (0, radius)
        picture, colours = shot(page), 255 * palette(7)[found.classes]
        return np.array([np.abs(picture[int(y), int(x)] - c).max() for (y, x), c in zip(places, colours, strict=True)])

    assert found.classes.tolist() == [1, 2, 2] and (marked() < 20).all()
    page.uncheck("#objects tr:nth-child(2) input")
    assert (marked() < 20).tolist() == [True, False, False]
    for cell, name in (((12, 25), "c"), ((7, 7), "none")):
        row, column = (edges[i] + 1 for edges, i in zip(scores.own_pixels, cell, strict=True))
        page.mouse.move(*at(page, row, column))
        assert read_out(page)[3] == ["class", name]


def test_a_shifted_row_and_column_have_their_own_pixels_and_crops(open_page):
    """The last windows overlap those before by more: their pixels begin where the nearer centre changes."""
    scores = score_map(19, 36)
    starts = [np.append(first + step * np.arange(count - 1), last) for first, step, count, last in
              ((-3, 6, 19, 104), (2, 4, 36, 141))]  # fmt: skip
    scores = dataclasses.replace(scores, starts=tuple(starts), border="shift")
    view = random_view()
    page = open_page(scores, view)
    assert np.abs(shown_image(page, 120, 160, 1) - scores.overlay(view).astype(int)).max() <= 1
    for row, column in ((109, 146), (112, 100), (60, 147), (107, 143)):
        cell = [cells[pixel] for cells, pixel in zip(scores.cells_of_pixels(), (row, column), strict=True)]
        page.mouse.move(*at(page, row, column))
        top, left, bottom, right = scores.cell_box(*cell)
        head = [f"{cell[0]}, {cell[1]}", f"{top}:{bottom}", f"{left}:{right}"]
        assert [value for _, value in read_out(page)[:3]] == head
        box = page.locator("#crop").bounding_box()
        x, y = at(page, top - 0.5, left - 0.5)
        np.testing.assert_allclose([box["x"], box["y"], box["width"]], [x, y, 11 * page.evaluate("zoom")], atol=0.6)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium: that of CHROMIUM, one on the PATH, or Playwright's own; else a skip that says why."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as started:
        try:
            chromium = started.chromium.launch(executable_path=path, args=["--no-zygote", "--force-color-profile=srgb"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium starts (CHROMIUM={path}): {str(error).splitlines()[0]}")
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Open a viewer's file without a network, and see that nothing is asked for and no script fails."""
    problems = []
    context = browser.new_context(viewport={"width": 900, "height": 600}, offline=True)
    page = context.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or problems.append(request.url))

    def get(scores, view, factor=1, **more):
        path = write_viewer(scores, view, tmp_path / "viewer.html", factor, **more)
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-ready=yes]")
        return page

    yield get
    context.close()
    assert not problems


def settled(page):
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def shot(page):
    """What the canvas shows, frames and scale bar left out: (H, W, 3)."""
    settled(page)
    page.add_style_tag(content="#stage div, #stage::after { visibility: hidden; }")
    return np.asarray(Image.open(io.BytesIO(page.locator("#map").screenshot())).convert("RGB")).astype(int)


def at(page, row, column):
    """Where a pixel of the image lies on the page."""
    box, (top, left, zoom) = page.locator("#map").bounding_box(), page.evaluate("[top_, left, zoom]")
    return box["x"] + (column + 0.5 - left) * zoom, box["y"] + (row + 0.5 - top) * zoom


def shown_image(page, height, width, zoom):
    """The part of the canvas that the image takes, at a whole zoom, with the image inside the canvas."""
    page.evaluate(f"zoom = {zoom}; left = top_ = 0; redraw()")
    return shot(page)[: height * zoom, : width * zoom]


@pytest.mark.parametrize("zoom", [1, 3])
def test_pixels_have_the_colours_of_overlay(open_page, zoom):
    scores, view = score_map(), random_view()
    page = open_page(scores, view)
    for chosen, opacity in ((None, 0.65), (2, 0.65), (6, 1.0)):
        page.select_option("#shown", label="the winner" if chosen is None else NAMES[chosen])
        page.fill("#opacity", str(opacity))
        wanted = scores.overlay(view, chosen, opacity).repeat(zoom, 0).repeat(zoom, 1).astype(int)
        seen = shown_image(page, 120, 160, zoom)
        wanted = wanted[: seen.shape[0], : seen.shape[1]]
        assert np.abs(seen - wanted).max() <= 1
    page.fill("#opacity", "0")
    page.check("#colour")
    seen = shown_image(page, 120, 160, 1)
    np.testing.assert_array_equal(seen, view)


def test_a_view_of_a_larger_image_has_its_cells_at_the_same_pixels(open_page):
    # Averages of 3 x 3 pixels under cells of 6 x 4; the last ones are cut off.
    scores = score_map(19, 36, 119, 160)
    image = random_view(119, 160)
    view, factor = view_of(image, most=54)
    page = open_page(scores, view, factor)
    wanted = scores.overlay(view.repeat(factor, 0).repeat(factor, 1)[:119, :160]).astype(int)
    assert np.abs(shown_image(page, 119, 160, 1) - wanted).max() <= 1


def test_grids_in_squares(open_page, monkeypatch):
    monkeypatch.setattr(viewer, "_SCORES_BYTES", 4 * (1 + 5) * 7 * 12)
    scores, view = score_map(), random_view()
    page = open_page(scores, view)
    assert "3 x 3 cells are shown as one" in page.text_content("#notes")
    page.select_option("#shown", "4")
    page.fill("#opacity", "1")
    seen = shown_image(page, 120, 160, 1)
    rows, columns = scores.cells_of_pixels()
    for row, column, cells in ((2, 60, ("0:3", "12:15")), (70, 90, ("9:12", "21:24")), (110, 144, ("18", "33:36"))):
        top, left = rows[row] // 3 * 3, columns[column] // 3 * 3
        best = scores.probabilities[top : top + 3, left : left + 3].max((0, 1))
        kept = np.argsort(-best)[:5]
        weight = best[4] if 4 in kept else 0
        wanted = view[row, column].mean() * (1 - weight) + 255 * palette(7)[4] * weight
        np.testing.assert_allclose(seen[row, column], wanted, atol=1)
        page.mouse.move(*at(page, row, column))
        end, right = scores.geometry.cell_box(min(top + 2, 18), min(left + 2, 35))[2:]
        begin, start = scores.geometry.cell_box(top, left)[:2]
        head = [", ".join(cells), f"{begin}:{end}", f"{start}:{right}"]
        assert [value for _, value in read_out(page)[:3]] == head
        assert [name for name, _ in read_out(page)[3:]] == [NAMES[index] for index in kept]


def read_out(page):
    return [[cell.inner_text() for cell in row.locator("td").all()] for row in page.locator("#read tr").all()]


def expected(scores, row, column):
    top, left, bottom, right = scores.geometry.cell_box(row, column)
    probabilities = scores.probabilities[row, column]
    order = np.argsort(-probabilities)[:5]
    return [
        ["row, column", f"{row}, {column}"],
        ["crop, pixel rows", f"{top}:{bottom}"],
        ["crop, pixel columns", f"{left}:{right}"],
        *([scores.class_names[index], f"{probabilities[index]:.4f}"] for index in order),
    ]


def same(seen, wanted):
    for (label, value), (name, number) in zip(seen, wanted, strict=True):
        assert label == name
        assert value == number or abs(float(value) - float(number)) < 1.1e-4
    return True


def test_the_cell_under_the_pointer_is_read_out_at_every_zoom(open_page):
    scores, view = score_map(), random_view()
    page = open_page(scores, view)
    rows, columns = scores.cells_of_pixels()
    for press, pixels in {
        "0": [(2, 6), (114, 148), (60, 80)],
        "1": [(3, 10), (114, 7), (61, 81)],
        "+": [(20, 130), (110, 30)],
        "-": [(64, 33)],
    }.items():
        page.keyboard.press(press)
        settled(page)
        for row, column in pixels:
            page.mouse.move(*at(page, row, column))
            assert same(read_out(page), expected(scores, rows[row], columns[column]))
    # Pixels of the border that belong to no cell, and what is beside the image.
    assert rows[-1] == columns[0] == -1
    for row, column in ((119, 50), (50, 0), (50, -9)):
        page.mouse.move(*at(page, row, column))
        assert page.text_content("#read").startswith("Point at a cell")


def test_frames_lie_around_the_cells_pixels_and_its_crop(open_page):
    scores = score_map()
    page = open_page(scores, random_view())
    page.keyboard.press("0")
    page.mouse.move(*at(page, 40, 61))
    row, column = (cells[pixel] for cells, pixel in zip(scores.cells_of_pixels(), (40, 61), strict=True))
    rows, columns = (np.flatnonzero(c == i) for c, i in zip(scores.cells_of_pixels(), (row, column), strict=True))
    for name, (top, left, bottom, right) in {
        "#crop": scores.geometry.cell_box(row, column),
        "#own": (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1),
    }.items():
        box = page.locator(name).bounding_box()
        x, y = at(page, top - 0.5, left - 0.5)
        end, low = at(page, bottom - 0.5, right - 0.5)
        seen = [box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]]
        np.testing.assert_allclose(seen, [x, y, end, low], atol=0.6)


def test_wheel_and_drag_keep_the_pixel_under_the_pointer(open_page):
    page = open_page(score_map(), random_view())
    box = page.locator("#map").bounding_box()

    def under(x, y):
        top, left, zoom = page.evaluate("[top_, left, zoom]")
        return top + (y - box["y"]) / zoom, left + (x - box["x"]) / zoom

    page.mouse.move(211, 345)
    before, cell, zoom = under(211, 345), read_out(page), page.evaluate("zoom")
    for _ in range(3):
        page.mouse.wheel(0, -100)
        settled(page)
    assert page.evaluate("zoom") == pytest.approx(zoom * 2**1.5)
    np.testing.assert_allclose(under(211, 345), before)
    page.mouse.down()
    page.mouse.move(400, 300, steps=4)
    page.mouse.up()
    np.testing.assert_allclose(under(400, 300), before)
    page.mouse.wheel(0, 100)
    settled(page)
    assert page.evaluate("zoom") == pytest.approx(zoom * 2)
    np.testing.assert_allclose(under(400, 300), before)
    assert read_out(page) == cell and len(cell) == 8


def test_everything_is_done_by_keyboard(open_page):
    scores = score_map()
    page = open_page(scores, random_view())
    order = []
    for _ in range(8):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id"))
    assert order == ["shown", "opacity", "colour", "out", "in", "fit", "one", "map"]
    page.keyboard.press("ArrowDown")
    start = page.evaluate("chosen")
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    assert same(read_out(page), expected(scores, start[0] - 1, start[1] + 2))
    for _ in range(5):
        page.keyboard.press("+")
    for _ in range(40):
        page.keyboard.press("ArrowLeft")
    settled(page)
    assert page.evaluate("chosen") == [start[0] - 1, 0]
    box, frame = page.locator("#map").bounding_box(), page.locator("#own").bounding_box()
    assert box["x"] <= frame["x"] and frame["x"] + frame["width"] <= box["x"] + box["width"]
    left = page.evaluate("left")
    page.keyboard.press("Shift+ArrowRight")
    assert page.evaluate("left - 0") == pytest.approx(left + page.evaluate("canvas.width / zoom / 8"))
    page.focus("#shown")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("Number($('shown').value)") == 0


def test_legend_and_scale_bar(open_page):
    scores = score_map()
    page = open_page(scores, random_view())
    shares = np.bincount(scores.scores.argmax(-1).ravel(), minlength=7) / (19 * 36)
    rows = [[cell.inner_text() for cell in row.locator("td").all()] for row in page.locator("#legend tr").all()]
    assert {name: value for name, value in rows} == {
        name: f"{100 * share:.1f} %" for name, share in zip(NAMES, shares, strict=True)
    }
    page.select_option("#shown", "6")
    assert page.locator("#legend td").first.inner_text() == NAMES[6]
    for _ in range(4):
        length = int(page.text_content("#length").split()[0])
        assert str(length).strip("0") in ("1", "2", "5")
        bar = page.locator("#bar").bounding_box()["width"]
        assert bar == pytest.approx(length * page.evaluate("zoom / devicePixelRatio"), abs=0.1)
        page.keyboard.press("-")
        settled(page)
