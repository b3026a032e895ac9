import keras
import numpy as np
import pytest
import tifffile
from data_sets import Counted
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zoo.large_images import scan
from zoo.pictures import resizing
from zoo.pictures.resizing import Resized, level_for


def by_pillow(image, size):
    planes = [Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR)) for plane in planes], axis=-1)


sides = st.integers(1, 40)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_regions_are_those_of_pillows_whole_image(data):
    height, width, *size = (data.draw(sides) for _ in range(4))
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16, np.float32]))
    image = np.random.default_rng(0).uniform(0, 255, (height, width, 2)) * (257 if dtype == np.uint16 else 1)
    image = image.astype(dtype)
    wanted = by_pillow(image, size)
    at_once = resizing._AT_ONCE
    resizing._AT_ONCE = data.draw(st.sampled_from([1, 50, 400, 2**20]))
    try:
        resized = Resized(image, tuple(size))
        assert resized.shape == wanted.shape and resized.dtype == np.float32
        whole = resized[:, :]
        (top, left), corner = ((data.draw(st.integers(0, side - 1)) for side in size) for _ in range(2))
        bottom, right = (max(first, end) + 1 for first, end in zip((top, left), corner, strict=True))
        part = resized[top:bottom, left:right]
    finally:
        resizing._AT_ONCE = at_once
    np.testing.assert_allclose(whole, wanted, rtol=0, atol=1e-5 * max(np.ptp(image), 1))
    np.testing.assert_array_equal(part, whole[top:bottom, left:right])


def test_only_what_goes_into_a_region_is_read():
    for size, part in (((500, 300), 20), ((3000, 1700), 100), ((1000, 1000), 50)):
        source = Counted(np.zeros((1000, 1000), np.uint8))
        Resized(source, size)[:part, 2 * part : 3 * part]
        reach = [part * 1000 / made + 2 * max(1000 / made, 1) + 1 for made in size]
        assert 0 < (source.reads > 0).sum() <= reach[0] * reach[1]


def test_an_image_without_channels_stays_so():
    image = np.random.default_rng(0).uniform(0, 1, (9, 7)).astype(np.float32)
    np.testing.assert_array_equal(Resized(image, (5, 11))[:, 3:], Resized(image[..., None], (5, 11))[:, 3:][..., 0])


@pytest.mark.parametrize(("size", "level"), [((100, 80), 1), ((101, 80), 0), ((99, 79), 1), ((1, 1), 2), ((999, 9), 0)])
def test_the_nearest_finer_level(size, level):
    assert level_for([(200, 160), (100, 80), (50, 40)], size) == level
    assert level_for([(50, 40), (100, 80), (200, 160)], size) == 2 - level


def test_a_scan_at_a_scale_reads_the_nearest_finer_level_of_a_pyramid(tmp_path):
    """Level 1 holds another image than level 0 shrunk would be: what is scanned at half the size is level 1 itself."""
    full, half = (np.random.default_rng(seed).integers(0, 256, size, np.uint8) for seed, size in enumerate(SIZES))
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as file:
        file.write(full, subifds=1, tile=(16, 16), photometric="minisblack")
        file.write(half, subfiletype=1, tile=(16, 16), photometric="minisblack")
    image = keras.Input((8, 8, 1))
    features = keras.layers.Conv2D(2, 4, 2)(image)
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(features)))
    found = scan(model, tmp_path / "pyramid.tif", scales=[0.5])
    own = scan(model, half)
    known = found.scores[found.scanned]
    assert found.scanned.any() and {*map(bytes, known)} <= {*map(bytes, np.reshape(to_probabilities(own), (-1, 3)))}


SIZES = ((64, 80), (32, 40))


def to_probabilities(score_map):
    from zoo.scores import to_probabilities

    return to_probabilities(np.asarray(score_map.scores), score_map.outputs).astype(np.float32)
