"""The equations of docs/equations.md: the page itself is run, and each is tested on random numbers.

Convolutions are built here as sparse matrices, from the definition alone: nothing of `zoo.network` and
`zoo.convert` is used for them.
"""

import doctest
from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.sparse as sparse
from conftest import randomize
from keras import layers

import zoo

PAGE = Path(__file__).resolve().parents[1] / "docs" / "equations.md"


def test_every_line_of_the_page_is_true():
    result = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert result.failed == 0 and result.attempted >= 25


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def weighted(layer, *shape):
    """The layer in float64 as a model, with random weights, biases too."""
    image = keras.Input(shape, dtype="float64")
    return randomize(keras.Model(image, layer(image)), seed=1)


def relative(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


# ---- the oracle


def picks(size, kernel, stride, dilation, padding):
    """For each tap of a window the matrix (outputs x inputs) that picks its row; TensorFlow's rule for SAME."""
    extent = (kernel - 1) * dilation + 1
    outputs = -(-size // stride) if padding == "same" else (size - extent) // stride + 1
    before = max((outputs - 1) * stride + extent - size, 0) // 2 if padding == "same" else 0
    matrices = []
    for tap in range(kernel):
        pairs = [(i, i * stride - before + tap * dilation) for i in range(outputs)]
        rows, columns = zip(*[(i, row) for i, row in pairs if 0 <= row < size] or [((), ())], strict=True)
        matrices.append(sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(outputs, size)))
    return matrices, outputs


def matrix(kernel, height, width, stride=1, dilation=1, padding="valid"):
    """The convolution with `kernel` (rows, columns, C, K) as a matrix (H' W' K, H W C), and H', W'."""
    vertical, rows = picks(height, kernel.shape[0], stride, dilation, padding)
    horizontal, columns = picks(width, kernel.shape[1], stride, dilation, padding)
    terms = [
        sparse.kron(sparse.kron(pick, turn), kernel[a, b].T, format="csr")
        for a, pick in enumerate(vertical)
        for b, turn in enumerate(horizontal)
    ]
    return sum(terms[1:], terms[0]).tocsr(), (rows, columns)


def averages(side, channels):
    """The kernel of an average over side[0] x side[1], each channel by itself."""
    return np.broadcast_to(np.eye(channels) / np.prod(side), (*side, channels, channels))


# ---- 1: pointwise


def test_a_1x1_convolution_is_a_dense_layer_at_every_pixel():
    conv = weighted(layers.Conv2D(5, 1, dtype="float64"), 6, 7, 3)
    kernel, bias = conv.layers[-1].get_weights()
    dense = weighted(layers.Dense(5, dtype="float64"), 6, 7, 3)
    dense.layers[-1].set_weights([kernel[0, 0], bias])
    image = normal(2, 6, 7, 3)
    by_hand = np.array([[[pixel @ kernel[0, 0] + bias for pixel in row] for row in picture] for picture in image])
    assert relative(np.asarray(conv(image)), by_hand) <= 1e-12
    assert relative(np.asarray(dense(image)), by_hand) <= 1e-12


def test_on_one_channel_it_is_a_scale_and_over_channels_a_mean():
    scale = weighted(layers.Conv2D(1, 1, use_bias=False, dtype="float64"), 6, 7, 1)
    scale.layers[-1].set_weights([np.full((1, 1, 1, 1), 2.5)])
    image = normal(1, 6, 7, 1)
    np.testing.assert_allclose(np.asarray(scale(image)), 2.5 * image, rtol=1e-12)
    mean = weighted(layers.Conv2D(1, 1, use_bias=False, dtype="float64"), 6, 7, 4)
    mean.layers[-1].set_weights([np.full((1, 1, 4, 1), 0.25)])
    image = normal(1, 6, 7, 4)
    np.testing.assert_allclose(np.asarray(mean(image))[..., 0], image.mean(-1), rtol=1e-9, atol=1e-12)


def test_a_maximum_over_channels_is_none():
    """It is not additive, and the best weights and bias for it leave an error that those for the mean do not."""
    a, b = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert (a + b).max() == 1 and a.max() + b.max() == 2
    pixels = normal(500, 4)
    design = np.c_[pixels, np.ones(500)]
    for wanted, linear in ((pixels.mean(1), True), (pixels.max(1), False)):
        solution = np.linalg.lstsq(design, wanted, rcond=None)[0]
        error = np.abs(design @ solution - wanted).max()
        assert error < 1e-12 if linear else error > 0.1


def test_200_by_200_by_50_with_20_filters():
    (row,) = zoo.describe(weighted(layers.Conv2D(20, 1, use_bias=False), 200, 200, 50)).rows
    assert row.output_shape == (200, 200, 20)
    assert (row.params, row.macs) == (1_000, 40_000_000)


# ---- 2: bottlenecks


def test_a_bottleneck_of_64_has_rank_64():
    image = keras.Input((5, 5, 256), dtype="float64")
    common = {"use_bias": False, "dtype": "float64"}
    x = layers.Conv2D(256, 1, **common)(layers.Conv2D(64, 1, **common)(image))
    model = randomize(keras.Model(image, x))
    down, up = (weight[0, 0] for weight in model.get_weights())
    assert down.size == up.size == 64 * 256 == 16_384
    assert [row.params for row in zoo.describe(model).rows] == [16_384, 16_384]
    assert np.linalg.matrix_rank(down @ up) == np.linalg.matrix_rank(up) == 64
    pixels = normal(12, 5, 5, 256)
    outputs = np.asarray(model(pixels)).reshape(-1, 256)
    assert relative(outputs, pixels.reshape(-1, 256) @ (down @ up)) <= 1e-12
    assert len(outputs) == 300 and np.linalg.matrix_rank(outputs) == 64
    assert np.linalg.matrix_rank(np.maximum(outputs, 0)) == 256


# ---- 3: shared weights


def test_180_weights_and_180_connections_a_pixel():
    """In the matrix of a 3x3 convolution with 20 filters: 9 entries a line, 180 a column away from the border."""
    kernel = np.arange(1, 181, dtype=float).reshape(3, 3, 1, 20)
    dense, (rows, columns) = matrix(kernel, 12, 11)
    assert (rows, columns) == (10, 9) and dense.shape == (10 * 9 * 20, 12 * 11)
    assert set(np.diff(dense.indptr)) == {9}
    a_pixel = np.diff(dense.tocsc().indptr).reshape(12, 11)
    assert (a_pixel[2:-2, 2:-2] == 180).all() and a_pixel[0, 0] == 20
    assert dense.nnz == rows * columns * 180 and len(np.unique(dense.data)) == 180
    (row,) = zoo.describe(weighted(layers.Conv2D(20, 3, use_bias=False), 12, 11, 1)).rows
    assert (row.params, row.macs) == (180, dense.nnz)


def test_the_large_matrix_of_the_page():
    dense, shape = matrix(1 + np.arange(180.0).reshape(3, 3, 4, 5), 12, 12)
    assert shape == (10, 10) and dense.shape == (500, 576)
    assert dense.nnz == 18_000 and len(np.unique(dense.data)) == 180


# ---- 4: a Dense layer as a convolution


def test_a_dense_layer_is_a_convolution_as_large_as_its_map():
    flat = weighted(layers.Dense(4, dtype="float64"), 5 * 6 * 3)
    kernel, bias = flat.layers[-1].get_weights()
    conv = weighted(layers.Conv2D(4, (5, 6), dtype="float64"), 5, 6, 3)
    conv.layers[-1].set_weights([kernel.reshape(5, 6, 3, 4), bias])
    image = normal(2, 5, 6, 3)
    wanted = np.asarray(flat(image.reshape(2, -1)))
    assert relative(np.asarray(conv(image))[:, 0, 0], wanted) <= 1e-12
    dense, shape = matrix(kernel.reshape(5, 6, 3, 4), 5, 6)
    assert shape == (1, 1)
    np.testing.assert_array_equal(dense.toarray(), kernel.T)


# ---- 5: a convolution as a Dense layer


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3)])
@pytest.mark.parametrize("side", [(3, 3), (4, 1), (1, 1)])
def test_a_convolution_is_a_sparse_matrix(side, stride, dilation, padding):
    layer = layers.Conv2D(5, side, stride, padding, dilation_rate=dilation, use_bias=False, dtype="float64")
    model = weighted(layer, 11, 12, 2)
    dense, shape = matrix(model.get_weights()[0], 11, 12, stride, dilation, padding)
    assert (*shape, 5) == model.output_shape[1:]
    image = normal(11, 12, 2)
    assert relative(np.asarray(model(image[None]))[0].ravel(), dense @ image.ravel()) <= 1e-12
    if side == (1, 1) and stride == 1:
        blocks = sparse.kron(sparse.eye_array(11 * 12), model.get_weights()[0][0, 0].T)
        assert abs(dense - blocks).max() == 0


def convolutional(rows, padding, head, activation, size):
    """Two convolutions and an average pooling as rows say, then a head of two Dense layers or a pooled one."""
    (kernel1, stride1, dilation1), (kernel2, stride2, dilation2) = rows
    common = {"padding": padding, "activation": activation, "use_bias": False, "dtype": "float64"}
    x = image = keras.Input((*size, 2), dtype="float64")
    x = layers.Conv2D(3, kernel1, stride1, dilation_rate=dilation1, **common)(x)
    x = layers.Conv2D(4, kernel2, stride2, dilation_rate=dilation2, **common)(x)
    x = layers.AveragePooling2D(2, dtype="float64")(x)
    if head == "flatten":
        x = layers.Flatten(dtype="float64")(x)
        x = layers.Dense(6, activation, use_bias=False, dtype="float64")(x)
    else:
        x = layers.GlobalAveragePooling2D(dtype="float64")(x)
    return randomize(keras.Model(image, layers.Dense(5, use_bias=False, dtype="float64")(x)), seed=3)


def matrices(model, rows, padding, head, size):
    """The converted network's layers on an image of `size`, as matrices, and the shape of its score map."""
    kernels = iter(model.get_weights())
    product = []
    for _, stride, dilation in rows:
        step, size = matrix(next(kernels), *size, stride, dilation, padding)
        product.append(step)
    step, size = matrix(averages((2, 2), 4), *size, stride=2)
    product.append(step)
    trained = next(layer for layer in model.layers if isinstance(layer, layers.AveragePooling2D)).output.shape[1:]
    window = next(kernels).reshape(*trained, 6) if head == "flatten" else averages(trained[:2], 4)
    step, size = matrix(window, *size)
    product.append(step)
    step, size = matrix(next(kernels)[None, None], *size)
    return [*product, step], size


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("head", ["flatten", "pooled"])
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([((3, 2), 1, 1), ((2, 3), 1, 1)], id="plain"),
        pytest.param([((3, 2), 2, 1), ((2, 2), 1, 1)], id="stride 2"),
        pytest.param([((2, 2), 1, 1), ((3, 3), 3, 1)], id="stride 3"),
        pytest.param([((3, 2), 2, 1), ((2, 3), 1, 2)], id="dilation 2"),
    ],
)
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_a_converted_net_is_a_product_of_sparse_matrices(rows, padding, head, activation):
    """On an image larger than the training size; with ReLU, the matrices alternate with maxima."""
    model = convolutional(rows, padding, head, activation, (15, 14))
    image = normal(26, 23, 2)
    scores = np.asarray(zoo.convolutionalize(model)(image[None]))[0]
    chain, shape = matrices(model, rows, padding, head, (26, 23))
    assert scores.shape == (*shape, 5) and min(shape) > 1
    if activation == "linear":
        product = chain[0]
        for step in chain[1:]:
            product = step @ product
        wanted = product @ image.ravel()
    else:
        wanted, rectified = image.ravel(), {0, 1, 3} if head == "flatten" else {0, 1}
        for index, step in enumerate(chain):
            wanted = step @ wanted
            wanted = np.maximum(wanted, 0) if index in rectified else wanted
    assert relative(scores.ravel(), wanted) <= 1e-9
