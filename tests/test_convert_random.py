"""Random classifiers without padding: every cell of a conversion is the classifier's own answer to the cell's crop."""

import keras
import numpy as np
import pytest
from conftest import noise, randomize
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from keras import layers
from small_nets import HEADS

import zoo
from zoo.errors import InputError
from zoo.scores import relative_error

pytestmark = pytest.mark.extended

pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
row = st.one_of(
    st.tuples(st.just("conv"), pair, pair, st.sampled_from(["relu", "linear", "gelu"])),
    st.tuples(st.just("depthwise"), pair, st.just((1, 1)), st.just("relu")),
    st.tuples(st.sampled_from(["average", "max"]), pair, pair, st.none()),
    st.tuples(st.just("branches"), st.tuples(st.sampled_from([1, 3]), st.just(3)), st.just((1, 1)), st.none()),
    st.tuples(st.sampled_from(["normalise", "prelu", "scale", "crop"]), st.none(), st.none(), st.none()),
)


def body(x, rows):
    """The layers of `rows` on a map."""
    for kind, kernel, stride, activation in rows:
        if kind == "conv":
            x = layers.Conv2D(5, kernel, stride, activation=activation)(x)
        elif kind == "depthwise":
            x = layers.DepthwiseConv2D(kernel, stride, activation=activation)(x)
        elif kind == "average":
            x = layers.AveragePooling2D(kernel, stride)(x)
        elif kind == "max":
            x = layers.MaxPooling2D(kernel, stride)(x)
        elif kind == "branches":
            one, wide = kernel
            trimmed = layers.Cropping2D((wide - one) // 2)(x)
            x = layers.Concatenate()([layers.Conv2D(3, one)(trimmed), layers.Conv2D(2, wide)(x)])
        elif kind == "normalise":
            x = layers.BatchNormalization()(x)
        elif kind == "prelu":
            x = layers.PReLU(shared_axes=[1, 2])(x)
        elif kind == "scale":
            x = layers.Rescaling(0.3, 0.1)(x)
        else:
            x = layers.Cropping2D(((0, 1), (1, 0)))(x)
    return x


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(
    rows=st.lists(row, min_size=1, max_size=5),
    size=st.tuples(st.integers(9, 16), st.integers(9, 16)),
    more=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    head=st.sampled_from(sorted(HEADS)),
)
def test_a_random_classifier_is_slid_exactly(rows, size, more, head):
    image = keras.Input((*size, 2))
    try:
        model = randomize(keras.Model(image, HEADS[head](body(image, rows))))
    except ValueError:
        assume(False)  # the map has no position left
    try:
        fcn = zoo.convolutionalize(model)
    except InputError as error:
        # Refusing is no fault; but what is refused has to be named.
        assert "layer" in str(error) or "model" in str(error)
        assume(False)
    larger = noise(1, size[0] + more[0], size[1] + more[1], 2)
    scores = np.asarray(fcn(larger))
    grid = zoo.geometry(fcn, larger.shape[1:3])
    assert scores.shape[1:3] == grid.grid_shape(*larger.shape[1:3])
    cells = [(0, 0), (scores.shape[1] - 1, scores.shape[2] - 1), (scores.shape[1] // 2, scores.shape[2] // 2)]
    for cell in cells:
        top, left, bottom, right = grid.cell_box(*cell)
        # Rows that the classifier leaves unused may end beyond the image.
        crop = np.full((1, *size, 2), 7, np.float32)
        part = larger[:, top:bottom, left:right]
        crop[:, : part.shape[1], : part.shape[2]] = part
        wanted = np.asarray(model(crop)).reshape(1, -1)
        assert relative_error(scores[:, cell[0], cell[1]], wanted) <= 1e-4
