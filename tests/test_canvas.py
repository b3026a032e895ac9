import numpy as np
import pytest
from data_sets import one_line, random_image
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data import make_canvas
from zoo.errors import InputError


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 7), st.sampled_from([1, 3])),
    count=st.integers(1, 20),
    spare=st.integers(0, 3),
    margin=st.one_of(st.none(), st.tuples(st.integers(0, 9), st.integers(0, 9))),
    seed=st.integers(0, 99),
)
def test_canvas_holds_exactly_the_pasted_images(shape, count, spare, margin, seed):
    images = random_image(count + spare, *shape, seed=seed) // 2 + 1
    labels = np.arange(count + spare)
    columns = int(np.ceil(np.sqrt(count)))
    rows = int(np.ceil(count / columns))
    size = margin and (rows * shape[0] + margin[0], columns * shape[1] + margin[1])
    canvas = make_canvas(images, labels, size, count, (200,), seed)
    assert canvas.image.shape == (*(size or (2 * rows * shape[0], 2 * columns * shape[1])), shape[2])
    assert len(set(canvas.labels)) == len(canvas.boxes) == count
    rest = canvas.image.copy()
    for (top, left, bottom, right), label in zip(canvas.boxes, canvas.labels, strict=True):
        assert 0 <= top and 0 <= left
        # A second image over the same pixels would meet the erased ones.
        np.testing.assert_array_equal(rest[top:bottom, left:right], images[label])
        rest[top:bottom, left:right] = 200
    assert (rest == 200).all()
    again = make_canvas(images, labels, size, count, (200,), seed)
    np.testing.assert_array_equal(canvas.image, again.image)
    if not spare:
        np.testing.assert_array_equal(canvas.labels, labels)


def test_canvas_places_differ_by_seed_and_background_by_channel():
    images, labels = random_image(9, 4, 4, 3), np.arange(9)
    one, other = (make_canvas(images, labels, (40, 50), 4, (1, 2, 3.7), seed) for seed in (0, 1))
    assert one.boxes.tolist() != other.boxes.tolist()
    assert {tuple(pixel) for pixel in one.image.reshape(-1, 3)} >= {(1, 2, 4)}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"count": 10}, "canvas.count: received 10; accepted: 1 to 9 images"),
        ({"count": 0}, "canvas.count: received 0; accepted: 1 to 9 images"),
        ({"count": 5, "size": (7, 18)}, "received [7, 18]; accepted: at least [8, 18], for 5 images of 4 x 6"),
        ({"count": 5, "size": (8, 17)}, "received [8, 17]; accepted: at least [8, 18], for 5 images of 4 x 6"),
        (
            {"count": 1, "background": (1, 2)},
            "background: received 2 values; accepted: 1, or one for each of 3 channels",
        ),
    ],
)
def test_canvas_errors(options, message):
    with pytest.raises(InputError) as raised:
        make_canvas(random_image(9, 4, 6, 3), np.arange(9), **options)
    assert message in one_line(raised)
