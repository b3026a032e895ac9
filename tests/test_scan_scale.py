"""Images brought to the scale of a model's training, and places told in pixels of the given image."""

import json
import warnings

import keras
import numpy as np
import pytest
import tifffile
from conftest import command, noise, randomize
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import zoo
from zoo.card import attach, card
from zoo.config import load_config
from zoo.errors import InputError
from zoo.experiment import scale_of, training_fill
from zoo.large_images import influence, scanner_of
from zoo.network.network import Network
from zoo.objects.marked import Objects, Scene, Scenes
from zoo.pictures import Resized
from zoo.scanning.grid import Grid
from zoo.scanning.options import Options
from zoo.scanning.pixels import Pixels
from zoo.scanning.scales import Windows
from zoo.scanning.viewer import view_of, write_viewer
from zoo.scores import relative_error


def with_card(model, **about):
    """The model with these keys of its card, and no other scale."""
    usual = {"scale": None, "pixel_size": None, "fill": None}
    return attach(model, card(model).model_copy(update={**usual, **about}))


def linear(window=8, channels=1, padding="valid", head=True):
    """A classifier of two strided convolutions without activations, so that a pixel may be moved by any amount."""
    image = keras.Input((window, window, channels))
    x = layers.Conv2D(4, 3, padding=padding)(image)
    x = layers.Conv2D(3, 2, 2, padding=padding)(x)
    model = randomize(keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))) if head else keras.Model(image, x)
    return with_card(model, class_names=("a", "b", "c"), dtype="uint8")


@pytest.fixture(scope="module")
def fcn():
    return zoo.convolutionalize(linear())


def bright(window=6):
    """The mean of the middle of a window, as the score of "thing"."""
    image = keras.Input((window, window, 1))
    x = layers.AveragePooling2D(2, 2)(layers.Cropping2D((window - 2) // 2)(image))
    dense = layers.Dense(2)
    model = keras.Model(image, dense(layers.Flatten()(x)))
    dense.set_weights([np.array([[0.0, 1.0]]), np.array([60.0, 0.0])])
    return with_card(model, class_names=("nothing", "thing"), dtype="uint8", image_size=(window, window))


def blobs(size, places, radius):
    """Bright spots on dark ground, brightest at continuous places (y, x)."""
    rows, columns = np.meshgrid(*(np.arange(side) + 0.5 for side in size), indexing="ij")
    image = np.full(size, 20.0)
    for y, x in places:
        image = np.maximum(image, 255.0 * (1 - np.hypot(rows - y, columns - x) / radius))
    return image.round().astype(np.uint8)[..., None]


def found_places(result):
    """The middles of the cells whose score is the largest around, in pixels of the given image."""
    scores = np.asarray(result.scores[..., 1] - result.scores[..., 0])
    around = np.pad(scores, 1, constant_values=-np.inf)
    others = np.max(
        [
            around[1 + down : 1 + down + scores.shape[0], 1 + across : 1 + across + scores.shape[1]]
            for down in (-1, 0, 1)
            for across in (-1, 0, 1)
        ],
        axis=0,
    )
    rows, columns = np.nonzero((scores == others) & (scores > 40))
    return np.stack([result.centres[0][rows], result.centres[1][columns]], axis=-1)


def write(path, image, pixel_size):
    tifffile.imwrite(path, image, resolution=(10_000 / pixel_size,) * 2, resolutionunit="CENTIMETER", photometric=1)
    return path


def quietly(call, *arguments, **options):
    """The result, and the text of every warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call(*arguments, **options)
    return result, [str(each.message) for each in caught if each.category is UserWarning]


PLACES = [(31.0, 41.0), (88.4, 22.8), (70.7, 101.3)]


@pytest.mark.parametrize("zoom", [1, 2, 4])
def test_objects_lie_where_they_are_at_any_magnification(tmp_path, zoom):
    """A model of 0.5 µm a pixel, on the same field at 0.5, 0.25 and 0.125 µm, by the resolution of a TIFF."""
    model = with_card(zoo.convolutionalize(bright()), pixel_size=0.5)
    places = np.array(PLACES) * zoom
    image = blobs((121 * zoom, 130 * zoom), places, 6 * zoom)
    result, told = quietly(zoo.scan, model, write(tmp_path / "a.tif", image, 0.5 / zoom), tile=64, border="full")
    assert result.scale == (1 / zoom, 1 / zoom) and result.image_size == image.shape[:2] and not told
    assert result.pixel_size == pytest.approx((0.5 / zoom, 0.5 / zoom))
    found = found_places(result)
    assert len(found) == 3
    for y, x in places:
        # The middle of a cell lies at most half a stride, of 2 pixels of the model's, from an object.
        assert np.abs(found - (y, x)).max(-1).min() <= zoom
    overlay = result.overlay(image)
    assert overlay.shape == (*image.shape[:2], 3)


@pytest.mark.parametrize(("size", "scale"), [((80, 33), 0.25), ((61, 47), 0.7), ((30, 28), 1.0), ((23, 26), 1.6)])
@pytest.mark.parametrize("options", [{}, {"border": "full"}, {"stride": 1, "border": "shift"}, {"scales": [0.8, 1.2]}])
def test_it_is_the_scan_of_the_resized_image(fcn, size, scale, options):
    if scale == 0.25 and "scales" in options:
        options = {"scales": [1.0, 1.2]}
    model, image = with_card(fcn), noise(*size, 1).astype(np.uint8)
    made = tuple(round(side * scale) for side in size)
    resized = Resized(image, made)[:, :].astype(np.float32)
    plain = zoo.scan(model, resized, **options)
    model = with_card(model, scale=scale)
    result, told = quietly(zoo.scan, model, image, tile=10, **options)
    assert told == [f"image states no pixel size: taken at scale {scale:g}, as in training"]
    np.testing.assert_array_equal(result.scanned, plain.scanned)
    # Merged scales are made of the given image, and not of one that was resized before.
    if "scales" not in options:
        assert relative_error(result.scores, plain.scores) <= 1e-5
    assert result.image_size == size and result.geometry.known_size == plain.geometry.known_size
    exact = made[0] / size[0], made[1] / size[1]
    assert result.scale == pytest.approx(exact)
    for axis in range(2):
        np.testing.assert_allclose(result.centres[axis], plain.centres[axis] / exact[axis])
        middles = result.starts[axis] + result.window[axis] / 2
        assert np.abs(middles - result.centres[axis]).max() <= (0.5 if "scales" not in options else 1.0) + 1e-6


def test_scales_come_on_top_of_the_models_and_are_made_of_the_given_image(fcn):
    model, image = with_card(fcn), noise(60, 52, 1).astype(np.uint8)
    plain = zoo.scan(model, image, scales=[0.5, 1])
    model = with_card(model, scale=0.5)
    result, _ = quietly(zoo.scan, model, image, scales=[1, 2])
    assert result.windows == {1: (16, 16), 2: (8, 8)} == {1: plain.windows[0.5], 2: plain.windows[1]}
    # The cells are those of half the image: every second one of the image's own.
    for row, column in ((0, 0), (3, 5), (10, 9)):
        centre = result.centres[0][row], result.centres[1][column]
        there = [int(np.argmin(abs(own - each))) for own, each in zip(plain.centres, centre, strict=True)]
        assert [own[at] for own, at in zip(plain.centres, there, strict=True)] == list(centre)
        np.testing.assert_allclose(result.scores[row, column], plain.scores[*there], rtol=1e-4, atol=1e-4)


def test_a_pyramid_is_read_at_the_nearest_finer_level(fcn, tmp_path):
    """The half level is another image, so that it can be known which one was read."""
    full, half = noise(96, 80, 1).astype(np.uint8)[..., 0], noise(48, 40, 1, seed=1).astype(np.uint8)[..., 0]
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        metadata = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25, "axes": "YX"}
        file.write(full, subifds=1, tile=(16, 16), metadata=metadata)
        file.write(half, subfiletype=1, tile=(16, 16))
    expected = zoo.scan(with_card(fcn), half[..., None])
    result = zoo.scan(with_card(fcn, pixel_size=0.5), tmp_path / "a.ome.tif", tile=10)
    assert relative_error(result.scores, expected.scores) <= 1e-6 and result.image_size == (96, 80)
    # The level that is asked for is an image of its own, with its own pixels.
    result = zoo.scan(with_card(fcn, pixel_size=0.5), tmp_path / "a.ome.tif", choice=zoo.Choice(level=1))
    assert relative_error(result.scores, expected.scores) <= 1e-6 and result.image_size == (48, 40)
    assert result.scale == (1, 1) and result.pixel_size == (0.5, 0.5)


NONE = "states no pixel size: taken at scale 0.5, as in training"
STATED = "states 0.25 µm a pixel"


@pytest.mark.parametrize(
    ("about", "own", "asked", "scale", "note"),
    [
        ({}, 0.25, None, 1, None),
        ({"scale": 0.5}, None, None, 0.5, NONE),
        ({"scale": 0.5}, 0.25, None, 0.5, f"{STATED}, the training images none: taken at scale 0.5, as in training"),
        (
            {"scale": 0.5, "pixel_size": 1.0},
            None,
            None,
            0.5,
            "states no pixel size: taken at scale 0.5, as in training",
        ),
        ({"scale": 0.5, "pixel_size": 1.0}, 0.25, None, 0.25, None),
        ({"pixel_size": 1.0}, 0.25, None, 0.25, None),
        ({"pixel_size": 1.0}, None, 0.5, 0.5, None),
        ({"pixel_size": 1.0}, 0.25, 0.5, 0.5, f"{STATED}, taken as 0.5 µm, as asked"),
        ({"pixel_size": 1.0}, 0.25, 0.2501, 0.25, None),
    ],
)
def test_what_an_image_is_scaled_by(fcn, tmp_path, about, own, asked, scale, note):
    image = noise(80, 64, 1).astype(np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, photometric=1) if own is None else write(path, image, own)
    result, told = quietly(zoo.scan, with_card(fcn, **about), path, pixel_size=asked)
    assert result.scale == pytest.approx((scale, scale), abs=1e-3)
    assert told == ([] if note is None else [f"{path} {note}"])


@pytest.mark.parametrize(
    ("about", "asked", "text"),
    [
        (
            {},
            0.5,
            "pixel_size: received 0.5; accepted: none: the pixel size that this model was trained at is not known",
        ),
        ({"scale": 0.5}, 0.5, "pixel_size: received 0.5; accepted: none: the pixel size that"),
        (
            {"pixel_size": 1.0},
            None,
            "image: received no pixel size; accepted: one in the file, or --pixel-size; the mod",
        ),
        ({"pixel_size": 1.0}, 100, "image: pixel size: received 100 µm; accepted: up to 64 times more or less than"),
        ({"pixel_size": 1.0}, 0.1, "image: received 8 x 7 pixels; accepted: at least one window of 8 x 8"),
        ({"pixel_size": 1.0}, -1, "pixel_size: received -1; accepted: micrometres above 0, such as 0.5"),
        ({"pixel_size": 1.0}, float("nan"), "pixel_size: received nan; accepted: micrometres above 0"),
        ({"pixel_size": 1.0}, "0.5", "pixel_size: received '0.5'; accepted: micrometres above 0"),
    ],
)
def test_what_cannot_be_scaled_is_refused(fcn, about, asked, text):
    model, image = with_card(fcn, **about), noise(80, 72, 1).astype(np.uint8)
    with pytest.raises(InputError) as caught:
        zoo.scan(model, image, pixel_size=asked)
    assert str(caught.value).startswith(text)
    model = with_card(linear(), **about)
    if "window" not in text:
        with pytest.raises(InputError) as caught:
            zoo.score_boxes(model, image, [(0, 0, 9, 9)], pixel_size=asked)
        assert str(caught.value).startswith(text)


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(20, 300), st.integers(20, 300)),
    scale=st.floats(0.2, 3),
    scales=st.sampled_from([None, (0.7, 1.0), (1.5,)]),
)
def test_windows_in_the_given_image_are_those_of_the_scanned_one(fcn, size, scale, scales):
    network = Network.of(fcn)
    made = tuple(max(round(side * scale), 16) for side in size)
    grid = Grid.of(network, made, "full")
    windows = Windows.of(grid, size, scales)
    for axis in range(2):
        ratio, starts, centres = size[axis] / made[axis], windows.starts[axis], windows.centres[axis]
        np.testing.assert_allclose(centres, (grid.starts[axis] + 4) * ratio)
        assert (np.diff(starts) >= 0).all() and starts.dtype.kind == "i"
        longest = 8 * ratio / min(scales or (1,))
        if scales is None:
            assert windows.sides[axis] == max(round(longest), 1)
            assert np.abs(starts + windows.sides[axis] / 2 - centres).max() <= 0.5 + 1e-5
        else:
            assert (starts <= centres - longest / 2 + 1e-5).all()
            assert (starts + windows.sides[axis] >= centres + longest / 2 - 1e-5).all()
            assert windows.sides[axis] <= longest + 3


def test_a_mask_the_record_and_the_viewer_are_in_pixels_of_the_given_image(fcn, tmp_path):
    model, image = with_card(fcn, pixel_size=2.0), noise(160, 120, 1).astype(np.uint8)
    mask = np.zeros((160, 120), bool)
    mask[100:104, 60] = True
    result = zoo.scan(model, image, mask=mask, pixel_size=0.5)
    plain = zoo.scan(with_card(model), image[::4, ::4])
    assert result.scanned.shape == plain.scanned.shape and result.scale == (0.25, 0.25)
    for row, column in np.ndindex(*result.scanned.shape):
        top, left, bottom, right = result.cell_box(row, column)
        assert (top, left) == (8 * row, 8 * column) and (bottom - top, right - left) == (32, 32)
        assert result.scanned[row, column] == mask[top:bottom, left:right].any()
    record = json.loads(result.save_geometry(tmp_path).read_text())
    assert record["scale"] == [0.25, 0.25] and record["pixel_size"] == [0.5, 0.5] and record["image_size"] == [160, 120]
    assert record["stride"] == [8, 8] and record["window"] == [32, 32] and record["offset"] == [0, 0]
    # Four pixels of the scanned image, each made of those within 4 of its centre.
    reach = result.geometry.receptive_field[0]
    assert record["receptive_field"] == [(reach - 1) * 4 + 8] * 2
    assert result.sentence() == "stride 8 x 8, window 32 x 32 pixels; the image was scaled by 0.25"
    np.testing.assert_array_equal(result.own_pixels[0], 12 + 8 * np.arange(len(result.own_pixels[0])))
    page = write_viewer(result, view_of(image)[0], tmp_path / "viewer.html").read_text()
    assert '"pixelSize":0.5' in page and '"window":[32,32]' in page and '"imageSize":[160,120]' in page


def test_a_window_that_is_the_whole_image_stays_it():
    image = keras.Input((None, None, 1))
    x = layers.Conv2D(3, 3)(image)
    x = layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])
    model = with_card(randomize(keras.Model(image, x)), scale=0.5)
    result, _ = quietly(zoo.scan, model, noise(24, 30, 1))
    assert result.cell_box(3, 4) == (0, 0, 24, 30) and result.scale == (0.5, 0.5)
    np.testing.assert_allclose(result.centres[1], 2 * np.arange(13) + 3)
    np.testing.assert_array_equal(result.cells_of_pixels()[0], [-1, -1, *np.repeat(range(10), 2), -1, -1])


@pytest.mark.parametrize("way", ["roi", "cells", "crops"])
def test_boxes_are_those_of_the_resized_image(way):
    model, image = linear(), noise(96, 80, 1).astype(np.uint8)
    boxes = np.array([(10, 10, 40, 42), (50.5, 20, 80, 60), (70, 60, 99, 90)])
    resized = Resized(image, (48, 40))[:, :]
    plain, _ = quietly(zoo.score_boxes, model, resized, np.clip(boxes, 0, [96, 80, 96, 80]) / 2, way=way)
    result, told = quietly(zoo.score_boxes, with_card(model, scale=0.5), image, boxes, way=way)
    assert relative_error(result.scores, plain.scores) <= 1e-5 and result.beyond == 1
    np.testing.assert_array_equal(result.boxes, boxes)
    assert told == ["image states no pixel size: taken at scale 0.5, as in training"]
    stated, told = quietly(zoo.score_boxes, with_card(model, pixel_size=1.0), image, boxes, way=way, pixel_size=0.5)
    np.testing.assert_array_equal(stated.scores, result.scores)
    assert not told


@pytest.mark.parametrize("options", [{}, {"border": "full"}, {"scales": [1, 1.5], "merge": "average-logits"}])
def test_influence_is_what_moving_a_pixel_of_the_given_image_does(options):
    """The model is linear."""
    model, options = with_card(linear(), scale=0.6), Options(**options)
    image = noise(31, 33, 1).astype(np.float32)
    scanner = scanner_of(model, options)
    nothing, scores = scanner(np.zeros(image.shape, np.float32)), scanner(image)
    rows, columns = nothing.scores.shape[:2]
    moved = [(0, 0), (7, 9), (15, 16), (30, 32), (20, 3)]
    dots = np.zeros((len(moved), *image.shape), np.float32)
    for dot, place in zip(dots, moved, strict=True):
        dot[*place, 0] = 100
    changes = [np.abs(scanner(dot).scores - nothing.scores) / 100 for dot in dots]
    for cell in ((0, 0), (rows - 1, columns - 1), (rows // 2, columns // 2)):
        found = influence(model, image, cell, 1, options)
        values = found.over((0, 0, 31, 33))
        wanted = [change[(*cell, 1)] for change in changes]
        np.testing.assert_allclose([values[place] for place in moved], wanted, rtol=1e-3, atol=1e-4 * values.max())
        assert found.window == scores.cell_box(*cell) and found.stride == scores.stride
        assert found.share(found.field) == pytest.approx(1)


@pytest.mark.parametrize("options", [{}, {"border": "full"}, {"stride": 1, "border": "reflect"}])
def test_a_padded_nets_crops_are_compared_at_the_models_scale(options):
    """Of kernels that weigh the middle alone padding changes nothing: every cell answers as its crop, of that scale."""
    model = linear(padding="same")
    first = model.layers[1]
    kernel = np.asarray(first.kernel)
    kernel[[0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
    first.kernel.assign(kernel)
    pixels = Pixels(noise(64, 60, 1) - 127.5)
    scanner = scanner_of(with_card(model, scale=0.5), Options(**options))
    scores = scanner(pixels)
    assert len(np.unique(scores.scores.argmax(-1))) > 1
    assert scanner.check_crops(scores, pixels, 50, 1e6).to_dict() == {"compared": 50, "same_answer": 50}


def test_scans_at_other_scales_are_told_apart(fcn, tmp_path):
    image = noise(80, 64, 1).astype(np.uint8)
    plain = scanner_of(with_card(fcn)).made_from(image)
    assert not {"pixel_size", "trained_at_scale", "trained_at_pixel_size", "fill"} & set(plain)
    model = with_card(fcn, pixel_size=1.0)
    first = scanner_of(model, Options(pixel_size=0.5)).made_from(image)
    assert first["pixel_size"] == 0.5 and first["trained_at_pixel_size"] == 1.0
    assert Options(pixel_size=0.5).that_place_cells() == {"pixel_size": 0.5} and Options().that_place_cells() == {}
    zoo.scan(model, image, output=tmp_path / "a.npy", pixel_size=0.5)
    with pytest.raises(InputError, match="'a.npy'|accepted"):
        zoo.scan(model, image, output=tmp_path / "a.npy", pixel_size=0.4)
    again = zoo.scan(model, image, output=tmp_path / "a.npy", pixel_size=0.5)
    assert again.scale == (0.5, 0.5)
    with_fill = with_card(fcn, fill=(3.0,))
    assert scanner_of(with_fill, Options(border="full")).made_from(image)["fill"] == [3.0]
    assert "fill" not in scanner_of(with_fill).made_from(image)


@pytest.mark.extended
def test_the_commands_take_a_pixel_size_and_say_what_they_did(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = noise(96, 90, 1).astype(np.uint8)
    tifffile.imwrite("plain.tif", image, photometric=1)
    write("sized.tif", image, 0.25)
    (tmp_path / "boxes.csv").write_text("top,left,bottom,right\n4,4,40,44\n")
    model = with_card(linear(), image_size=(8, 8))
    for name, about in (("by_size", {"pixel_size": 0.5}), ("by_scale", {"scale": 0.5}), ("none", {})):
        zoo.save(with_card(model, **{"pixel_size": None, "scale": None, **about}), tmp_path / f"{name}.keras")
    commands = {
        "scan": lambda model, image, *more: ("scan", model, image, "-o", "out", "--overwrite", *more),
        "regions": lambda *given: ("regions", *given[:2], "boxes.csv", "-o", "b.csv", "--overwrite", *given[2:]),
        "predict": lambda model, image, *more: ("predict", model, image, *more),
        "plot": lambda model, image, *more: ("plot", model, "--cell", "2,3", "--image", image, "--overwrite", *more),
    }
    for name, line in commands.items():
        code, _, err = command(capsys, *line("by_size.keras", "plain.tif"))
        assert code == 2 and "image plain.tif: received no pixel size; accepted: one in the file" in err, name
        code, out, err = command(capsys, *line("by_size.keras", "plain.tif", "--pixel-size", "0.25"))
        assert code == 0 and "taken at" not in out, err
        code, out, err = command(capsys, *line("by_scale.keras", "plain.tif"))
        said = "(states no pixel size" if name == "predict" else "note: image plain.tif states no pixel size"
        said = said.replace("image ", "") if name in ("scan", "plot") else said
        assert code == 0 and out.count(f"{said}: taken at scale 0.5, as in training") == 1, out + err
    code, _, err = command(capsys, *commands["scan"]("none.keras", "plain.tif", "--pixel-size", "0.25"))
    assert code == 2 and "accepted: none: the pixel size that this model was trained at is not known" in err
    command(capsys, *commands["scan"]("by_size.keras", "sized.tif"))
    record = json.loads((tmp_path / "out" / "geometry.json").read_text())
    assert record["scale"] == [0.5, 0.5] and record["pixel_size"] == [0.25, 0.25] and record["window"] == [16, 16]


def test_predict_pads_as_training_did(tmp_path):
    """A model that was trained on mirrored borders sees such ones."""
    from zoo.evaluation import predict, predict_files

    image = noise(5, 7, 1).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric=1)
    for fill, how in (("reflect", {"mode": "reflect"}), ((9.0,), {"constant_values": 9})):
        model = with_card(linear(), image_size=(8, 8), fill=fill)
        (answer,) = predict_files(model, [tmp_path / "a.tif"])
        wanted = predict(model, np.pad(image, ((1, 2), (0, 1), (0, 0)), **how)[None])[0].astype(np.float64)
        wanted = np.exp(wanted - wanted.max())
        np.testing.assert_allclose(answer.probabilities, wanted / wanted.sum(), rtol=1e-5)


def scenes(*sizes):
    nothing = Objects(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, int))
    made = [Scene("a", None, nothing, (8, 8), scale, size) for size, scale in sizes]
    return Scenes(("a", "background"), "background", tuple(made), (), ())


HALF = (0.5, 0.5)


@pytest.mark.parametrize(
    ("keys", "sizes", "scale", "pixel_size"),
    [
        ({"scale": 0.5}, [(None, HALF)], 0.5, None),
        ({"scale": 0.5}, [((0.25, 0.25), HALF), ((0.2505, 0.25), HALF)], 0.5, 0.50025),
        ({"scale": 0.5}, [((0.25, 0.25), HALF), ((0.5, 0.5), HALF)], 0.5, None),
        ({"scale": 0.5}, [((0.25, 0.5), HALF)], 0.5, None),
        ({"scale": 0.5}, [((0.25, 0.25), HALF), (None, HALF)], 0.5, None),
        ({}, [((0.25, 0.25), (1.0, 1.0))], 1.0, 0.25),
        ({"pixel_size": 0.5}, [((0.25, 0.25), HALF)], None, 0.5),
    ],
)
def test_the_card_keeps_the_scale_of_the_training(tmp_path, keys, sizes, scale, pixel_size):
    overrides = [f"data.{name}={value}" for name, value in keys.items()]
    data = load_config("nin_digits", ["data.name=scenes", f"data.dir={tmp_path}", *overrides]).data
    assert scale_of(data, scenes(*sizes)) == {"scale": scale, "pixel_size": pytest.approx(pixel_size)}


def test_the_card_keeps_what_training_put_beyond_a_border():
    from dataclasses import replace

    from zoo import data

    config = load_config("nin_digits", ["train.augment.shift=0", "model.preprocess={mean: [33.3], std: [255]}"])
    digits = data.load(config)
    assert training_fill(digits, config) is None
    shifted = load_config("nin_digits", ["train.augment.shift=1", "model.preprocess={mean: [33.3], std: [255]}"])
    assert training_fill(digits, shifted) == (33.3,)
    larger = load_config("nin_digits", ["model.image_size=[40, 40]", "train.augment.shift=0", "canvas=null"])
    assert training_fill(data.load(larger), larger) == (0,)
    assert training_fill(replace(digits, scenes=replace(scenes(), fill=(7.4,))), config) == (7.0,)
