"""Class activation maps, whose mean is the logit: for every net of the catalogue, and every head that has none."""

import keras
import numpy as np
import pytest
from conftest import command, noise, randomize
from keras import layers
from PIL import Image
from small_nets import HEADS, channels_first, stack

import zoo
from zoo import activation_plots
from zoo.activation_maps import ClassActivation
from zoo.catalogue import resolve
from zoo.convert.copy import in_dtype
from zoo.errors import InputError
from zoo.made_by import maker_of
from zoo.network.network import Network
from zoo.scores import relative_error

# Nets by the seconds that they take; the others are of the same blocks, and run when asked for.
DEFAULT = ("nin_digits", "resnet_digits")
EXTENDED = ("nin_mnist_valid", "inception_cifar10", "countception", "squeezenet1_1", "resnet50", "googlenet")
NAMES = [
    pytest.param(name, marks=() if name in DEFAULT else pytest.mark.extended if name in EXTENDED else pytest.mark.slow)
    for name in zoo.list_models()
]


def in_float64(model):
    return in_dtype(Network.of(model), "float64").model


def image_for(model, seed=0):
    return noise(*model.input_shape[1:], seed=seed).astype(np.float64)


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_of_the_maps_is_the_logit_in_every_net_of_the_catalogue(name):
    """And each cell is the last layer's kernel on the feature map there, plus its bias; in float64."""
    config = resolve(name)
    side = next(side for side in range(config.smallest_image, 2000) if config.feature_map_size(side) >= 2)
    size = (side, side + config.total_stride)
    model = in_float64(randomize(zoo.build(name, image_size=size)))
    image = image_for(model)
    found = zoo.class_activation(model, image)
    before_head = next(layer for layer in model.layers if layer.name.startswith("head_")).input
    features = np.asarray(keras.Model(model.input, before_head)(image[None]))[0]
    last = model.get_layer("head_class_maps" if config.head.kind == "class_maps" else "head_logits")
    kernel, bias = (np.asarray(weight) for weight in last.weights)
    wanted = features @ kernel.reshape(kernel.shape[-2:]) + bias
    if getattr(config.head, "relu", False):
        wanted = np.maximum(wanted, 0)
    assert found.maps.dtype == np.float64 and found.maps.shape[:2] == (2, 3)
    assert relative_error(found.maps, wanted) <= 1e-12
    logits = np.asarray(model(image[None]))[0]
    assert relative_error(found.maps.mean((0, 1)), logits) <= 1e-12
    assert relative_error(found.logits, logits) <= 1e-12


# Of each head of the small nets that has no class activation maps, what is said of it.
REFUSED = {
    "flatten": "'flatten.*': keeps the positions apart",
    "flatten, stack": "'flatten.*': keeps the positions apart",
    "reshape": "'reshape.*': keeps the positions apart",
    "flatten, relu": "'flatten.*': keeps the positions apart",
    "flatten, normalised": "'flatten.*': keeps the positions apart",
    "flatten, normalised twice, no bias": "'flatten.*': keeps the positions apart",
    "flatten, relu, normalised, stack": "'flatten.*': keeps the positions apart",
    "flatten, channels first": "'flatten.*': keeps the positions apart",
    "max": "'global_max.*': pools the maximum",
    "max, stack": "'global_max.*': pools the maximum",
    "unit normalisation": "'global_max.*': pools the maximum",
    "keepdims, normalised over all": "'global_max.*': pools the maximum",
    "operations": r"'softmax.*': \(Softmax\) is not linear",
    "layer normalisation": r"'layer_normalization.*': \(LayerNormalization\) is not linear",
    "two heads merged": "'global_max.*': pools the maximum",
}
MORE_REFUSED = {
    "hidden": (
        lambda x: layers.Dense(4)(layers.Dense(8, "relu", name="hidden")(layers.GlobalAveragePooling2D()(x))),
        r"'hidden': \(Dense\) is not linear",
    ),
    "softmax before the pooling": (
        lambda x: layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1, activation="softmax", name="maps")(x)),
        "'maps': makes probabilities before the pooling",
    ),
    "two poolings": (
        lambda x: layers.Add()([layers.GlobalAveragePooling2D()(x), layers.GlobalAveragePooling2D(name="other")(x)]),
        "'other': is a second pooling beside 'global_average_pooling2d",
    ),
    "maxout": (
        lambda x: layers.GlobalMaxPooling1D(name="most")(layers.Reshape((5, 1))(layers.GlobalAveragePooling2D()(x))),
        r"'most': \(GlobalMaxPooling1D\) is not linear",
    ),
    "its own gate": (
        lambda x: layers.Multiply(name="gate")([v := layers.GlobalAveragePooling2D()(x), layers.Dense(5)(v)]),
        r"'gate': \(Multiply\) is not linear",
    ),
    "divisor": (lambda x: 1 / layers.GlobalAveragePooling2D()(x), r"'true_divide.*': \(TrueDivide\) is not linear"),
}
LINEAR = {
    **{kind: head for kind, head in HEADS.items() if kind not in REFUSED},
    "normalised": lambda x: layers.Dense(4)(layers.BatchNormalization()(layers.GlobalAveragePooling2D()(x))),
    "two layers": lambda x: layers.Dense(4)(layers.Dense(9)(layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x)))),
    "a sum": lambda x: layers.Average()([layers.Dense(4)(v := layers.GlobalAveragePooling2D()(x)), layers.Dense(4)(v)]),
    "numbers": lambda x: layers.Dense(4)((layers.GlobalAveragePooling2D()(x) - 1) * 2 / 3),
    "class maps, relu": lambda x: layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Conv2D(4, 1)(x))),
    "softmax": lambda x: layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(x)),
    "softmax by itself": lambda x: layers.Softmax()(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1)(x))),
    "sigmoid": lambda x: layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(x)),
}


@pytest.mark.parametrize("kind", LINEAR)
def test_linear_heads_have_maps_whose_mean_is_the_logit(kind):
    model = in_float64(stack(LINEAR[kind]))
    image = image_for(model)
    found = zoo.class_activation(model, image)
    answer = np.asarray(model(image[None]))[0].ravel()
    logits = found.maps.mean((0, 1))
    if kind.startswith("softmax"):
        logits = np.exp(logits) / np.exp(logits).sum()
    elif kind == "sigmoid":
        logits = 1 / (1 + np.exp(-logits))
    assert found.maps.shape == (4, 2, len(answer))
    assert relative_error(logits, answer) <= 1e-12


@pytest.mark.parametrize("kind", [*REFUSED, *MORE_REFUSED])
def test_other_heads_are_refused_with_the_layer_that_stands_in_the_way(kind):
    head, text = MORE_REFUSED[kind] if kind in MORE_REFUSED else (HEADS[kind], REFUSED[kind])
    with pytest.raises(InputError, match=f"layer {text}.*; accepted for class activation maps: one global average"):
        zoo.class_activation(stack(head), noise(12, 10, 3))


def test_what_is_quantized_is_not_linear():
    model = stack(lambda x: layers.Dense(4, name="last")(layers.GlobalAveragePooling2D()(x)))
    model.get_layer("last").quantize("int8")
    with pytest.raises(InputError, match=r"layer 'last': \(Dense\) is not linear"):
        zoo.class_activation(model, noise(12, 10, 3))


def test_scores_of_windows_are_means_of_the_maps():
    """The score map of the converted classifier is the moving average of its class activation maps, border or not."""
    model = in_float64(randomize(zoo.build("nin_digits")))
    image = noise(17, 21, 1).astype(np.float64)
    maps = zoo.class_activation(zoo.convolutionalize(model, pooling="global"), image).maps
    scores = zoo.scan(zoo.convolutionalize(model), image).scores
    rows, columns = zoo.class_activation(model, image[:8, :8]).maps.shape[:2]
    assert scores.shape[:2] == (maps.shape[0] - rows + 1, maps.shape[1] - columns + 1) and rows > 1
    for row, column in np.ndindex(scores.shape[:2]):
        window = maps[row : row + rows, column : column + columns]
        np.testing.assert_allclose(scores[row, column], window.mean((0, 1)), atol=1e-12 * abs(maps).max())


def test_maps_that_have_their_channels_first():
    def head(x, form):
        return layers.Dense(4)(layers.GlobalAveragePooling2D(**form)(x))

    model = channels_first(head)
    image = noise(12, 10, 3)
    found = zoo.class_activation(model, image)
    assert found.maps.shape == (5, 4, 4)
    np.testing.assert_allclose(found.maps.mean((0, 1)), np.asarray(model(image.transpose(2, 0, 1)[None]))[0], rtol=1e-4)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_blocks_lie_about_the_middle_of_what_cells_see(padding):
    size = (40, 45)
    model = zoo.build("nin_mnist_bn", image_size=size, padding=padding)
    found = zoo.class_activation(model, noise(*size, 1))
    before_head = next(layer for layer in model.layers if layer.name.startswith("head_")).input
    geometry = zoo.geometry(keras.Model(model.input, before_head), size)
    rows, columns = found.maps.shape[:2]
    for row, column in ((rows // 2, columns // 2), (rows - 1, 0)):
        top, left, bottom, right = geometry.cell_box(row, column)
        blocks = zip(found.corner, found.stride, (row, column), strict=True)
        middle = [begin + (index + 0.5) * stride for begin, stride, index in blocks]
        assert middle == [(top + bottom) / 2, (left + right) / 2]
    assert found.by_field and found.stride == (4, 4)


def test_where_cells_see_everything_their_blocks_divide_the_image():
    image = keras.Input((12, 10, 1))
    x = layers.Conv2D(4, 3, 2)(image)
    x = layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])
    model = randomize(keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))))
    found = zoo.class_activation(model, noise(12, 10, 1))
    assert not found.by_field and found.box == (0, 0, 12, 10) and found.stride == (12 / 5, 10 / 4)
    assert relative_error(found.maps.mean((0, 1)), np.asarray(model(noise(1, 12, 10, 1)))[0]) <= 1e-5


def test_what_is_no_classifier_or_another_image_is_refused():
    model = zoo.build("nin_digits")
    for image, text in (
        (noise(9, 8, 1), r"received 9 x 8 pixels; accepted: 8 x 8, or images of any size, by convolutionalize"),
        (noise(8, 8, 3), r"\(H, W, 1\)"),
        (np.full((8, 8, 1), np.inf, np.float32), "not finite"),
        ("gone.png", "gone.png"),
    ):
        with pytest.raises(InputError, match=text):
            zoo.class_activation(model, image)
    with pytest.raises(InputError, match="gives a score map, whose cells are means of class activation maps"):
        zoo.class_activation(zoo.convolutionalize(model), noise(8, 8, 1))
    two = keras.Model(model.input, [model.output, model.layers[-2].output])
    with pytest.raises(InputError, match="has 2 outputs"):
        zoo.class_activation(two, noise(8, 8, 1))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A padded classifier in a file, and the folder of two images."""
    folder = tmp_path_factory.mktemp("digits")
    zoo.save(randomize(zoo.build("nin_digits")), folder / "digits.keras")
    for index, size in enumerate([(8, 8), (11, 9)]):
        Image.fromarray(noise(*size, seed=index).astype(np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.mark.extended
def test_the_command_draws_and_writes_the_maps_of_every_image(digits, capsys, tmp_path):
    model, images, out = digits / "digits.keras", [digits / "0.png", digits / "1.png"], tmp_path / "out"
    code, said, _ = command(capsys, "predict", model, *images, "--explain", out)
    assert code == 0 and said.count("wrote ") == 2 and "cropped or padded to 8 x 8" in said
    assert sorted(path.name for path in out.iterdir()) == ["0.npz", "0.png", "1.npz", "1.png"]
    for name in ("0", "1"):
        with np.load(out / f"{name}.npz") as arrays:
            assert arrays["maps"].shape == (4, 4, 10)
            np.testing.assert_allclose(arrays["maps"].mean((0, 1)), arrays["logits"], rtol=1e-4, atol=1e-4)
            assert f"{arrays['class_names'][arrays['logits'].argmax()]} " in said
        assert maker_of(out / f"{name}.png") == maker_of(out / f"{name}.npz")
        assert maker_of(out / f"{name}.png").command == "zoo predict"
    code, _, error = command(capsys, "predict", model, images[0], "--explain", out, "--class", "3")
    assert code == 2 and "made from another class; accepted: another path, or --overwrite" in error
    assert command(capsys, "predict", model, images[0], "--explain", out, "--class", "3", "--overwrite")[0] == 0


def test_what_the_command_cannot_explain_is_one_line(digits, capsys, tmp_path):
    model, image, out = digits / "digits.keras", digits / "0.png", tmp_path / "out"
    flat = zoo.save(zoo.build("nin_digits", head={"kind": "flatten"}), tmp_path / "flat.keras")
    for line, text in (
        ((flat, image, "--explain", out), "layer 'head_flatten': keeps the positions apart"),
        ((model, image, "--explain", out, "--class", "cat"), "unknown class 'cat'; accepted: 0, 1, 2"),
        ((model, image, image, "--explain", out), "received 2 named '0.png'; accepted: names of their own"),
        ((model, image, "--explain", image), "is a file; accepted: a folder"),
        ((model, image, "--class", "3"), "--class has no effect without --explain"),
    ):
        code, said, error = command(capsys, "predict", *line)
        assert (code, said, error.count("\n")) == (2, "", 1) and text in error
    assert not out.exists()


def test_the_picture_has_a_signed_scale_and_the_blocks_where_they_lie(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(activation_plots, "write_figure", lambda figure, *_: drawn.append(figure))
    maps = np.array([[[1.0, -3.0], [0.5, 2.0]]])
    found = ClassActivation(maps, maps.mean((0, 1)), ("a", "$b"), (-1.5, 1.0), (4.0, 3.0), True)
    activation_plots.activation(found, noise(8, 8, 1), [0, 1], tmp_path / "a.png")
    (figure,) = drawn
    image, *panels = figure.axes[:3]
    assert [panel.get_title() for panel in panels] == ["a: logit 0.75", "$b: logit -0.5"]
    assert "the mean of the 1 x 2 cells is the logit" in figure.get_suptitle()
    for index, panel in enumerate(panels):
        below, blocks = panel.images
        assert tuple(below.get_extent()) == tuple(image.images[0].get_extent()) == (-0.5, 7.5, 7.5, -0.5)
        assert tuple(blocks.get_extent()) == (0.5, 6.5, 2.0, -2.0)
        colours = np.asarray(blocks.get_array())[0]
        # Red minus blue has the sign of the map, and is the larger the larger that is.
        signed = colours[:, 0] - colours[:, 2]
        assert (np.sign(signed) == np.sign(maps[0, :, index])).all()
    bar = figure.axes[3]
    assert bar.get_ylim() == (-3, 3)
