import json

import keras
import numpy as np
import pytest
from conftest import noise, randomize
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import zoo
from zoo.errors import InputError
from zoo.evaluate import predict_files
from zoo.scanning import masks
from zoo.scanning.influence import influence
from zoo.scanning.keys import difference, image_key
from zoo.scanning.regions import score_boxes


@pytest.fixture(scope="module")
def model():
    return zoo.convolutionalize(randomize(zoo.build("nin_digits", padding="valid")))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_masks_decide_by_cell_by_plain_loops(model, data):
    """Alike for every tile, stride, border and output."""
    size = [data.draw(st.integers(12, 40)) for _ in range(2)]
    mask = np.zeros(size, bool)
    for _ in range(data.draw(st.integers(0, 3))):
        top, left = (data.draw(st.integers(0, side - 1)) for side in size)
        mask[top : top + data.draw(st.integers(1, 9)), left : left + data.draw(st.integers(1, 9))] = True
    options = {
        "border": data.draw(st.sampled_from(["none", "reflect", "shift"])),
        "stride": data.draw(st.sampled_from([None, 1, (2, 1)])),
    }
    image, at_once = noise(*size), masks._AT_ONCE
    masks._AT_ONCE = data.draw(st.sampled_from([1, 100, 2**22]))
    try:
        result = zoo.scan(model, image, tile=data.draw(st.sampled_from([None, 4, 10, 16])), mask=mask, **options)
    finally:
        masks._AT_ONCE = at_once
    for cell in np.ndindex(result.scanned.shape):
        top, left, bottom, right = np.maximum(result.cell_box(*cell), 0)
        assert result.scanned[cell] == mask[top:bottom, left:right].any()
    np.testing.assert_array_equal(np.isnan(result.scores).any(-1), ~result.scanned)
    whole = zoo.scan(model, image, **options).scores[result.scanned]
    np.testing.assert_allclose(result.scores[result.scanned], whole, rtol=1e-4, atol=1e-4)


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
