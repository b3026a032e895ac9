import json
import os
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tifffile
from conftest import noise, randomize
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import zoo
from zoo.errors import InputError
from zoo.evaluation import predict_files
from zoo.large_images import influence, score_boxes
from zoo.pictures import read_image
from zoo.scanning import masks
from zoo.scanning.keys import difference, image_key
from zoo.scanning.viewer import view_of, write_viewer


@pytest.fixture(scope="module")
def model():
    return zoo.convolutionalize(randomize(zoo.build("nin_digits", padding="valid")))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_cells_inside_a_mask_by_plain_loops(data):
    sides = [data.draw(st.integers(1, 20)) for _ in range(2)]
    mask = np.random.default_rng(data.draw(st.integers(0, 99))).random((*sides, 1)) < data.draw(st.floats(0, 0.2))
    starts = tuple(np.sort(data.draw(st.lists(st.integers(-9, 25), min_size=1, max_size=9))) for _ in range(2))
    window, at_once = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12))), masks._AT_ONCE
    masks._AT_ONCE = data.draw(st.sampled_from([1, 50, 2**22]))
    try:
        inside = masks.cells_inside(mask, starts, window)
    finally:
        masks._AT_ONCE = at_once
    for (row, top), (column, left) in product(*map(enumerate, starts)):
        part = mask[max(top, 0) : max(top + window[0], 0), max(left, 0) : max(left + window[1], 0)]
        assert inside[row, column] == part.any()


@pytest.mark.parametrize("border", ["none", "reflect", "shift"])
@pytest.mark.parametrize("stride", [None, (2, 1)])
def test_masks_decide_by_cell_alike_for_every_tile(model, border, stride):
    mask, image = np.zeros((33, 38), bool), noise(33, 38)
    mask[5:8, 20] = mask[32, 37] = True
    whole = zoo.scan(model, image, border=border, stride=stride).scores
    for tile in (None, 4, 16):
        result = zoo.scan(model, image, tile=tile, mask=mask, border=border, stride=stride)
        for cell in np.ndindex(result.scanned.shape):
            top, left, bottom, right = np.maximum(result.cell_box(*cell), 0)
            assert result.scanned[cell] == mask[top:bottom, left:right].any()
        np.testing.assert_array_equal(np.isnan(result.scores).any(-1), ~result.scanned)
        np.testing.assert_allclose(result.scores[result.scanned], whole[result.scanned], rtol=1e-4, atol=1e-4)


def test_a_window_of_the_whole_image_sees_every_mask(tmp_path):
    image = keras.Input((None, None, 1))
    x = layers.Conv2D(2, 3, padding="same")(image)
    model = randomize(keras.Model(image, layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])))
    mask = np.zeros((12, 15), bool)
    with pytest.raises(InputError, match="^mask: none of 12 x 15 cells has a pixel inside it; accepted"):
        zoo.scan(model, noise(12, 15), mask=mask)
    mask[2, 3] = True
    found = zoo.scan(model, noise(12, 15), mask=mask)
    assert found.scanned.all() and found.cell_box(3, 4) == (0, 0, 12, 15)
    record = json.loads((found.save(tmp_path) / "geometry.json").read_text())
    assert record["window"] == [None, None] and record["last_cell_box"] == [0, 0, 12, 15]
    np.testing.assert_array_equal(found.cells_of_pixels()[1], np.arange(15))
    viewer = write_viewer(found, view_of(noise(12, 15, 1))[0], tmp_path / "viewer.html").read_text()
    assert '"window":[12,15]' in viewer and "Infinity" not in viewer.split("</script>")[0]
    with pytest.raises(InputError, match="scales: the cells of this model have no window"):
        zoo.scan(model, noise(12, 15), scales=[1, 2])


def test_a_scan_at_scales_is_told_in_pixels_of_the_image(model, tmp_path):
    """Windows of 8 pixels are ones of 32 at the scale 0.25; those of all scales lie in the box of a cell."""
    image = noise(96, 80, 1).astype(np.uint8)
    result = zoo.scan(model, image, scales=[0.25, 2])
    about = json.loads(result.save_geometry(tmp_path).read_text())
    assert about["window"] == [32, 32] and about["stride"] == [2, 2] and about["offset"] == [-12, -12]
    assert about["windows"] == [{"scale": 0.25, "window": [32, 32]}, {"scale": 2.0, "window": [4, 4]}]
    # Eight pixels of the scaled image, 4 apart, each made from 4 to both sides of its centre.
    assert about["receptive_field"] == [36, 36] and about["last_cell_box"] == [76, 60, 108, 92]
    assert result.cell_box(3, 5) == (-6, -2, 26, 30) and result.scanned.all()
    assert result.sentence() == "stride 2 x 2, windows in pixels: 32 x 32 at scale 0.25, 4 x 4 at scale 2"
    page = write_viewer(result, view_of(image)[0], tmp_path / "viewer.html").read_text()
    assert result.sentence() in page and '"window":[32,32]' in page
    # A cell colours the pixels about its centre, as at the image's own scale.
    plain = zoo.scan(model, image)
    for axis in range(2):
        np.testing.assert_array_equal(result.own_pixels[axis], plain.own_pixels[axis])
    assert about["cells_not_scanned"] == 0 and about["scanned"] is None
    alone = json.loads(plain.save_geometry(tmp_path).read_text())
    assert alone["windows"] is None and alone["window"] == [8, 8] == alone["receptive_field"]


def test_a_folder_whose_files_changed_is_another_image(tmp_path):
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "a.zarr"
    stored = zarr.create_array(path, shape=(32, 32, 3), chunks=(16, 16, 3), dtype="u1")
    stored[...] = 10
    key = image_key(path)
    assert difference({"image": str(key)}, {"image": image_key(path)}) is None
    about = path.stat()
    stored[:16, :16] = 200
    assert difference({"image": str(key)}, {"image": image_key(path)}) == "image"
    # What version 1 wrote is known again: it looked at the folder alone.
    old = f"a.zarr, {about.st_size} bytes, {about.st_mtime_ns}"
    assert path.stat().st_mtime_ns == about.st_mtime_ns and difference({"mask": old}, {"mask": image_key(path)}) is None
    assert json.loads(json.dumps(image_key(path))) == image_key(path)


def test_links_in_a_folder_are_not_followed_to_folders(tmp_path):
    inside, path = tmp_path / "else", tmp_path / "a.zarr"
    inside.mkdir()
    path.mkdir()
    (path / "c").write_bytes(b"1")
    plain = image_key(path)
    (path / "gone").symlink_to(tmp_path / "nothing")
    (path / "round").symlink_to(path)
    (path / "away").symlink_to(inside)
    key = image_key(path)
    (inside / "d").write_bytes(b"2")
    assert plain != key == image_key(path)
    (path / "c").unlink()
    (path / "c").symlink_to(inside / "d")
    key = image_key(path)
    (inside / "d").write_bytes(b"22")
    assert key != image_key(path)


def test_what_cannot_be_read_names_the_image(tmp_path, monkeypatch):
    (tmp_path / "a.zarr" / "c").mkdir(parents=True)
    listed = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed(path if str(path).endswith(".zarr") else tmp_path / "gone"))
    with pytest.raises(InputError, match=r"^image .*a\.zarr: cannot be read \(No such file"):
        image_key(tmp_path / "a.zarr")


def test_the_key_of_an_ome_tiff_is_of_all_its_files(tmp_path):
    planes = noise(3, 20, 30).astype(np.uint8)
    names = [f"{index}.ome.tif" for index in range(3)]
    data = "".join(
        f'<TiffData FirstC="{index}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{index}</UUID></TiffData>'
        for index, name in enumerate(names)
    )
    sizes = 'DimensionOrder="XYCZT" Type="uint8" SizeX="30" SizeY="20" SizeC="3" SizeZ="1" SizeT="1"'
    for index, name in enumerate(names):
        text = f'<OME UUID="urn:uuid:{index}"><Image ID="Image:0"><Pixels {sizes}>{data}</Pixels></Image></OME>'
        tifffile.imwrite(tmp_path / name, planes[index], description=text, metadata=None)
    path = tmp_path / names[0]
    np.testing.assert_array_equal(read_image(path), np.moveaxis(planes, 0, -1))
    key, about = image_key(path), path.stat()
    assert key == image_key(path)
    tifffile.imwrite(tmp_path / names[2], planes[:2])
    assert key != image_key(path)
    # What was written of the first file alone is known again; without the others that is the key.
    alone = f"{names[0]}, {about.st_size} bytes, {about.st_mtime_ns}"
    assert difference({"image": alone}, {"image": image_key(path)}) is None
    (tmp_path / names[2]).unlink()
    (tmp_path / names[1]).unlink()
    assert image_key(path) == alone


@pytest.mark.parametrize("ending", ["npy", "zarr"])
def test_absurd_scales_are_refused_before_anything_is_written(model, tmp_path, monkeypatch, ending):
    output = tmp_path / "new" / f"a.{ending}"
    for scales in ([1, 1e4], [1e9], [1e300], [1e308], [1, 17], [1e-300], [1, 1.0], [0.7, 0.70000001]):
        with pytest.raises(InputError, match="^scales?[: ]") as error:
            zoo.scan(model, noise(33, 38), scales=scales, output=output)
        assert len(str(error.value)) < 500 and not output.parent.exists(), scales
    monkeypatch.setattr("zoo.scanning.scan.available", lambda: 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="scales: .* take 1 MiB in memory; accepted: what fits"):
        zoo.scan(model, noise(33, 38), scales=[1, 2])
    if ending == "npy":
        with pytest.raises(InputError, match="take 1 MiB in '.*a.npy'; accepted: what fits"):
            zoo.scan(model, noise(33, 38), scales=[1, 2], output=output)


@pytest.mark.parametrize("scales", [None, [1, 1.5]])
def test_a_mask_that_leaves_no_cell_is_refused_before_the_scan(model, tmp_path, scales):
    np.save(tmp_path / "mask.npy", np.zeros((33, 38), np.uint8))
    with pytest.raises(InputError, match=r"^mask .*mask\.npy: none of 13 x 16 cells has a pixel inside it"):
        zoo.scan(model, noise(33, 38), scales=scales, mask=tmp_path / "mask.npy", output=tmp_path / "new" / "a.npy")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("stride", [None, 1])
def test_scores_that_are_not_finite_name_their_precision(tmp_path, stride):
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, kernel_initializer="ones", dtype="mixed_float16")(image)
    x = layers.Conv2D(4, 3, 2, kernel_initializer=keras.initializers.Constant(100), dtype="mixed_float16")(x)
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))
    pixels = noise(20, 20)
    with pytest.raises(InputError, match="cell 0,0: received scores that are not finite, computed in float16 by the"):
        zoo.scan(model, pixels, stride=stride, output=tmp_path / "scores.npy")
    # Cells that are not scanned may be anything; here those that see the first rows.
    pixels[:10] = 0
    pixels[10:] = 1e-3
    zoo.scan(model, pixels, stride=stride)
    pixels[:4] = 255
    mask = np.zeros((20, 20), bool)
    mask[-1:] = True
    assert np.isfinite(zoo.scan(model, pixels, stride=stride, mask=mask).scores[-1]).all()
    for attempt, what in (
        (lambda: score_boxes(model, pixels, [(12, 0, 20, 8), (0, 0, 8, 8)], "crops"), "box 2"),
        (lambda: score_boxes(model, pixels, [(12, 0, 20, 8), (0, 0, 8, 8)]), "box 2"),
        (lambda: influence(model, pixels, (0, 0)), "cell 0,0"),
    ):
        with pytest.raises(InputError, match=f"{what}: received scores that are not finite, computed in float16"):
            attempt()
    np.save(tmp_path / "image.npy", pixels[:8, :8])
    with pytest.raises(InputError, match="image .*image.npy: received scores that are not finite, computed in float16"):
        list(predict_files(model, [tmp_path / "image.npy"]))


def test_what_no_scanned_window_covers_is_counted_by_the_cells_that_were_scanned():
    """At scale 0.5 the windows of 16 pixels begin at 0 in an image of 40: the last ends at 40 at the latest."""
    image = keras.Input((8, 8, 1))
    features = keras.layers.Conv2D(2, 4, 2)(image)
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(features)))
    found = zoo.scan(model, np.random.default_rng(0).integers(0, 256, (40, 44, 1), np.uint8), scales=[0.5])
    assert not found.scanned.all() and found.scanned.any()
    rows, columns = (np.flatnonzero(found.scanned.any(axis)) for axis in (1, 0))
    first, last = found.cell_box(rows[0], columns[0]), found.cell_box(rows[-1], columns[-1])
    wanted = (max(first[0], 0), max(first[1], 0), max(40 - last[2], 0), max(44 - last[3], 0))
    assert found.uncovered == wanted
    none = replace(found, scores=np.full_like(found.scores, np.nan), scanned=np.zeros_like(found.scanned))
    assert none.uncovered == (40, 44, 40, 44)
