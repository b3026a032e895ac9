"""The page for browsers, part by part, beside the Python that it follows: files, sizes, grids, tiles, objects."""

import base64
import functools
import http.server
import io
import json
import shutil
import threading

import numpy as np
import pytest
from conftest import noise, randomize
from keras import Input, Model, layers
from PIL import Image
from test_viewer import browser  # noqa: F401

import zoo
from zoo.card import Card, Peaks, attach
from zoo.exported.formats import FORMATS
from zoo.exporting import web_page
from zoo.exporting.writing import _carried
from zoo.network.network import Network
from zoo.pictures import Wanted, read_picture
from zoo.pictures.resizing import Resized, scaled_size
from zoo.scanning.grid import Grid
from zoo.scanning.overlay import shown
from zoo.scanning.scales import Windows
from zoo.scanning.score_map import ScoreMap
from zoo.scanning.viewer import _counted


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A plain local server, without a log."""

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture(scope="module")
def serve():
    """Serve a folder at an address of its own until the tests of the module are over."""
    servers = []

    def start(folder, handler=Quiet):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def call(browser, serve, tmp_path_factory):  # noqa: F811
    """Call JavaScript with the page's modules at hand: `call("(modules, argument) => ...", argument)`."""
    folder = tmp_path_factory.mktemp("modules")
    for file in web_page._PAGE.glob("*.js"):
        shutil.copyfile(file, folder / file.name)
    (folder / "index.html").write_text("<!doctype html><title>modules</title>")
    page = browser.new_page()
    page.goto(serve(folder))
    page.evaluate(
        "async () => { window.modules = {}; for (const name of ['geometry', 'pictures', 'scores'])"
        " Object.assign(window.modules, await import(`./${name}.js`)); }"
    )
    yield lambda code, argument=None: page.evaluate(f"(argument) => ({code})(window.modules, argument)", argument)
    page.close()


def residual(padding):
    """Strided SAME layers that meet a shortcut, so that the size of the image matters, and copies of rows."""
    image = Input((None, None, 1))
    x = layers.Conv2D(4, 3, strides=2, padding=padding)(layers.ZeroPadding2D(((1, 2), (0, 1)))(image))
    x = layers.Add()([layers.Conv2D(4, 3, strides=2, padding="same")(x), layers.Conv2D(4, 1, strides=2)(x)])
    x = layers.UpSampling2D(2)(layers.MaxPooling2D(3, 2, padding="same")(x))
    return attach(randomize(Model(image, layers.Conv2D(3, 1)(x))), Card(image_size=(32, 32)))


NETS = {
    "without padding": (lambda: zoo.convolutionalize(zoo.build("nin_digits", padding="valid")), (70, 103)),
    "padded": (lambda: zoo.convolutionalize(zoo.build("nin_digits")), (41, 8)),
    "a shortcut": (lambda: residual("same"), (64, 91)),
    "a shortcut, odd": (lambda: residual("valid"), (65, 90)),
}
OF_GRID = """({ Grid }, [carried, size, scanned, tile]) => {
  const grid = new Grid(carried, size, scanned), list = (axes) => axes.map((each) => [...each]);
  return { shape: grid.shape, stride: grid.stride, sides: grid.sides, starts: list(grid.starts),
    centres: list(grid.centres), edges: list(grid.edges), keeps: grid.keepsFunction, tiles: grid.tiles(tile),
    sentence: grid.sentence() };
}"""


def carried_of(network):
    return json.loads(_carried(network, FORMATS["web"], "float32").text())


@pytest.mark.parametrize("name", NETS)
def test_grids_and_tiles_are_those_of_a_scan(name, call):
    build, trained = NETS[name]
    network = Network.of(build())
    about = carried_of(network)
    for scale in (1, 0.75):
        size = tuple(int(side / scale) for side in trained)
        scanned = scaled_size(size, float(scale))
        grid = Grid.that_fits(network, scanned)
        for tile in (1, 20, 1024):
            seen = call(OF_GRID, [about, size, scanned, tile])
            cells = max(tile // max(grid.geometry.stride), 1) * max(grid.geometry.stride)
            assert seen["tiles"] == list(map(tile_as_data, grid.tiles(cells)))
        score_map = map_of(network, grid, size)
        assert tuple(seen["shape"]) == grid.shape and tuple(seen["stride"]) == grid.geometry.stride
        assert tuple(seen["sides"]) == score_map.window and seen["keeps"] == (not grid.other_function)
        for ours, theirs in (("starts", score_map.starts), ("centres", score_map.centres), ("edges", score_map.edges)):
            for axis in range(2):
                np.testing.assert_allclose(seen[ours][axis], theirs[axis], atol=1e-5 if ours == "edges" else 1e-9)
        if scale == 1:
            assert seen["sentence"] == score_map.sentence()


def tile_as_data(tile):
    return {
        "cells": [[part.start, part.stop] for part in tile.cells],
        "pixels": [[part.start, part.stop] for part in tile.pixels],
        "inner": [part.start for part in tile.inner],
    }


def map_of(network, grid, size, scores=None, outputs="logits"):
    """The map that a scan of an image of `size` makes on a grid."""
    windows, about = Windows.of(grid, size), network.card
    scores = np.zeros((*grid.shape, network.units()), np.float32) if scores is None else scores
    return ScoreMap(
        *(scores, grid.geometry, network.class_names, size, windows.starts, windows.sides, np.ones(grid.shape, bool)),
        outputs=outputs,
        background=about.background,
        peaks=about.peaks,
        scale=tuple(np.divide(grid.image_size, size)),
        middles=windows.centres,
    )


def test_images_that_no_window_fits_into_are_refused(call):
    network = Network.of(zoo.convolutionalize(zoo.build("nin_digits")))
    refused = (
        "({ Grid }, [carried, size]) => { try { new Grid(carried, size, size); } catch (e) { return e.message; } }"
    )
    assert call(refused, [carried_of(network), (8, 8)]) is None
    text = call(refused, [carried_of(network), (7, 8)])
    assert text == "The image has 7 x 8 pixels (height x width); accepted: at least one window of 8 x 8."


SCALES = [
    (Card(), None, 1),
    (Card(scale=0.25), None, 0.25),
    (Card(pixel_size=0.5), 1.0, 2),
    (Card(pixel_size=0.5, scale=0.3), None, 0.3),
    (Card(pixel_size=0.5, scale=0.3), 0.25, 0.5),
    (Card(pixel_size=0.5), None, "Give the image's pixel size: the model was trained at 0.5 µm a pixel."),
    (Card(pixel_size=0.5), 50.0, "A pixel size of 50 µm was given; accepted: up to 64 times more or less than 0.5 µm."),
    (Card(pixel_size=0.5), 0, "A pixel size of 0 µm was given; accepted: up to 64 times more or less than 0.5 µm."),
]


@pytest.mark.parametrize(("card", "stated", "wanted"), SCALES)
def test_the_scale_of_an_image(card, stated, wanted, call):
    code = "({ scaleOf }, [c, s]) => { try { return scaleOf(c, s).scale; } catch (e) { return e.message; } }"
    assert call(code, [card.model_dump(mode="json"), stated]) == wanted


@pytest.mark.parametrize("size", [(31, 24), (7, 90), (40, 30), (10, 11), (80, 33)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resized_images_are_the_same_bit_for_bit(size, channels, call):
    image = noise(40, 30, channels).astype(np.uint8)
    code = "({ resized }, [all, from, to, c]) => [...resized(Uint8Array.from(all), from, to, c)]"
    seen = call(code, [image.ravel().tolist(), image.shape[:2], size, channels])
    wanted = np.asarray(Resized(image, size)[:, :], np.float32)
    np.testing.assert_array_equal(np.array(seen, np.float32).reshape(wanted.shape), wanted)


def test_sizes_are_rounded_as_python_does(call):
    tried = [((side, 7), scale) for side in range(1, 60) for scale in (0.25, 0.5, 0.3, 1.5)]
    seen = call("({ scaledSize }, tried) => tried.map(([size, by]) => scaledSize(size, by))", tried)
    assert seen == [list(scaled_size(*each)) for each in tried]


READ = """async ({ decode, samplesOf }, [content, channels]) => {
  const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
  const about = { mostPixels: 10000, mostSide: 5000 };
  try {
    const canvas = await decode(new File([bytes], "a"), about);
    return { size: [canvas.height, canvas.width], samples: [...samplesOf(canvas, channels)] };
  } catch (error) { return error.message; }
}"""


def encoded(pixels, kind="PNG", mode=None, **options):
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    with io.BytesIO() as file:
        (image if mode is None else image.convert(mode)).save(file, kind, **options)
        return file.getvalue()


def colours(height=23, width=31):
    return noise(height, width, 3).astype(np.uint8)


def profile():
    """A colour profile that is far from sRGB: its channels are swapped."""
    from PIL import ImageCms

    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for swapped, name in ((b"rXYZ", b"tmpX"), (b"gXYZ", b"rXYZ"), (b"tmpX", b"gXYZ")):
        at = content.index(swapped, 128)
        content[at : at + 4] = name
    return bytes(content)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


SMOOTH = np.add.outer(np.arange(24), np.arange(40))[..., None].repeat(3, -1).astype(np.uint8) * np.array(
    [3, 2, 1], np.uint8
)
# Content, and the channels that are wanted.
READ_ALIKE = {
    "rgb": (lambda: encoded(colours()), 3),
    "grey": (lambda: encoded(colours()[..., :1]), 1),
    "grey for colours": (lambda: encoded(colours()[..., :1]), 3),
    "grey in colours": (lambda: encoded(colours()[..., :1].repeat(3, -1)), 1),
    "a palette": (lambda: encoded(colours(), mode="P"), 3),
    "one bit": (lambda: encoded(colours()[..., :1], mode="1"), 1),
    "opaque alpha": (lambda: encoded(colours(), mode="RGBA"), 3),
    "a profile": (lambda: encoded(colours(), icc_profile=profile()), 3),
    "jpeg": (lambda: encoded(SMOOTH.astype(np.uint8), "JPEG", quality=95, subsampling=0), 3),
    "jpeg, grey": (lambda: encoded(SMOOTH[..., :1], "JPEG", quality=95), 1),
    "jpeg, a profile": (lambda: encoded(SMOOTH, "JPEG", quality=95, subsampling=0, icc_profile=profile()), 3),
    **{
        f"jpeg, turned {number}": (
            lambda number=number: encoded(SMOOTH, "JPEG", quality=95, subsampling=0, exif=turned(number)),
            3,
        )
        for number in (2, 3, 6, 8)
    },
}


@pytest.mark.parametrize("name", READ_ALIKE)
def test_files_are_read_as_the_zoo_reads_them(name, call, tmp_path):
    build, channels = READ_ALIKE[name]
    (tmp_path / "a").write_bytes(content := build())
    wanted, _ = read_picture(tmp_path / "a", Wanted(channels, np.dtype(np.uint8)))
    seen = call(READ, [base64.b64encode(content).decode(), channels])
    assert isinstance(seen, dict), seen
    assert tuple(seen["size"]) == wanted.shape[:2]
    pixels = np.array(seen["samples"]).reshape(wanted.shape)
    # Decoders of JPEG may round otherwise.
    assert np.abs(pixels - wanted.astype(int)).max() <= ("jpeg" in name)


def deep():
    with io.BytesIO() as file:
        Image.fromarray(noise(9, 9).astype(np.uint16) * 200).save(file, "PNG")
        return file.getvalue()


def transparent():
    return encoded(noise(9, 9, 4).astype(np.uint8))


READ_REFUSED = {
    "16 bits": (deep, 1, "is a PNG of 16 bits a sample; accepted: PNG or JPEG of 8 bits a sample"),
    "cmyk": (lambda: encoded(SMOOTH, "JPEG", mode="CMYK"), 3, "is a JPEG of 4 channels of 8 bits; accepted"),
    "tiff": (lambda: encoded(colours(), "TIFF"), 3, "is neither PNG nor JPEG; accepted"),
    "empty": (lambda: b"", 3, "is neither PNG nor JPEG"),
    "a png cut short": (lambda: encoded(colours())[:-30], 3, "is broken or truncated"),
    "a jpeg cut short": (lambda: encoded(SMOOTH, "JPEG")[:-30], 3, "is broken or truncated"),
    "colours for grey": (lambda: encoded(colours()), 1, "has 3 channels in colour; accepted: 1, a grey image"),
    "transparent": (transparent, 3, "has transparent pixels"),
    "too large": (
        lambda: encoded(np.zeros((101, 100, 1), np.uint8)),
        1,
        "has 101 x 100 pixels; accepted: up to 10,000",
    ),
    "too wide": (lambda: encoded(np.zeros((1, 5001, 1), np.uint8)), 1, "has 1 x 5001 pixels"),
}


@pytest.mark.parametrize("name", READ_REFUSED)
def test_files_that_are_refused(name, call):
    build, channels, words = READ_REFUSED[name]
    assert str(call(READ, [base64.b64encode(build()).decode(), channels])).startswith(words)


OF_SCORES = """({ Grid, classesOf, objectsOf, sharesOf }, [carried, about, size, all]) => {
  const grid = new Grid(carried, size, size), scores = Float32Array.from(all);
  const { winners, strength } = classesOf(scores, grid.shape, about);
  const objects = about.findObjects ? objectsOf(scores, winners, grid, about, carried.card.peaks) : null;
  return { winners: [...winners], strength: [...strength], objects, shares: sharesOf(winners, grid, about) };
}"""
PEAKS = {"a": Peaks(threshold=0.4, distance=9, margin=6), "c": Peaks(threshold=0, distance=0)}


@pytest.mark.parametrize("outputs", ["logits", "sigmoid", "probabilities"])
@pytest.mark.parametrize(("background", "peaks"), [(None, {}), ("b", {}), ("b", PEAKS), (None, PEAKS)])
@pytest.mark.parametrize("spread", [1, 60, 0])  # of 60 softmax is 1 to the last bit at some cells, of 0 all are equal
def test_classes_and_objects_are_those_of_a_scan(outputs, background, peaks, spread, call):
    image, names = Input((None, None, 1)), ("a", "b", "c")
    x = layers.Conv2D(3, 9, strides=4, padding="same")(image)
    last = {"logits": None, "sigmoid": "sigmoid", "probabilities": "softmax"}[outputs]
    model = Model(image, layers.Conv2D(3, 1, activation=last)(x))
    model = attach(model, Card(class_names=names, background=background, peaks=peaks, image_size=(40, 40)))
    network, size = Network.of(model), (93, 118)
    grid = Grid.that_fits(network, size)
    generator = np.random.default_rng(0)
    scores = np.round(generator.normal(0, spread, (*grid.shape, 3)), 1).astype(np.float32)
    if outputs != "logits":
        scores = np.round(1 / (1 + np.exp(-np.clip(scores, -50, 50))), 1).astype(np.float32)
    score_map = map_of(network, grid, size, scores, outputs)
    carried = _carried(network, FORMATS["web"], "float32")
    about = web_page.about_page(network, carried)
    seen = call(OF_SCORES, [json.loads(carried.text()), json.loads(json.dumps(about)), size, scores.ravel().tolist()])
    np.testing.assert_array_equal(np.reshape(seen["winners"], grid.shape), score_map.classes_of(scores))
    np.testing.assert_allclose(np.reshape(seen["strength"], grid.shape), shown(score_map, scores)[1], atol=1e-6)
    (top, bottom), (left, right) = _counted(score_map)
    counted = score_map.classes_of(scores)[top:bottom, left:right]
    assert {index: count for index, count in seen["shares"]} == dict(
        zip(*np.unique(counted, return_counts=True), strict=True)
    )
    if not score_map.cell_classes.find_objects:
        assert seen["objects"] is None
        return
    found = score_map.objects()
    assert len(found) > 3 or spread == 0
    assert [each["index"] for each in seen["objects"]] == found.classes.tolist()
    assert [each["cell"] for each in seen["objects"]] == found.cells.tolist()
    np.testing.assert_allclose([each["score"] for each in seen["objects"]], found.scores, atol=1e-9)
    places = np.array([[each["y"], each["x"]] for each in seen["objects"]]).reshape(-1, 2)
    np.testing.assert_allclose(places, found.centres, atol=1e-9)
