import keras
import numpy as np
import pytest
from conftest import noise, randomize, some_by_default
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from keras import layers

import zoo
from zoo.errors import InputError
from zoo.network.network import Network
from zoo.scanning.grid import Grid
from zoo.scanning.tiles import AxisPart, part_of, parts_of
from zoo.scores import relative_error


def small_net(draw):
    """A random net in float64: SAME and valid layers, strided or not, with a branch, a pooling and a head."""
    common = {"dtype": "float64"}
    padding, either = st.sampled_from(["same", "valid"]), st.booleans()
    x = image = keras.Input((20 + draw(st.integers(0, 3)), 20 + draw(st.integers(0, 3)), 1), **common)
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride, branches = draw(st.integers(1, 4)), draw(st.integers(1, 2)), draw(either)
        pad = "same" if branches else draw(padding)
        made = layers.Conv2D(3, kernel, stride, pad, activation="tanh", **common)(x)
        x = layers.Concatenate(**common)([made, layers.MaxPooling2D(3, stride, pad, **common)(x)]) if branches else made
    if draw(either):
        x = layers.AveragePooling2D(draw(st.integers(2, 3)), 2, draw(padding), **common)(x)
    head = draw(st.sampled_from([layers.Flatten, layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D]))
    return randomize(keras.Model(image, layers.Dense(2, **common)(head(**common)(x))))


@pytest.mark.extended
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_in_float64_no_tile_leaves_a_trace(data):
    fcn = zoo.convolutionalize(small_net(data.draw))
    tile = data.draw(st.integers(8, 30))
    reach = int(max(zoo.geometry(fcn).receptive_field))
    height, width = (data.draw(st.integers(tile + reach, tile + reach + 30)) for _ in range(2))
    image = np.random.default_rng(0).normal(size=(height, width, 1))
    whole = np.asarray(fcn(image[None]))[0]
    scanned = zoo.scan(fcn, image, tile=tile)
    assert len(list(Grid.of(Network.of(fcn), (height, width)).tiles(tile))) > 1
    assert scanned.scores.dtype == np.float64
    assert relative_error(scanned.scores, whole) <= 1e-9


def odd_net(draw):
    """A net in float64 of what moves a grid: croppings, padding of more than a kernel, pooled maps enlarged again."""
    common = {"dtype": "float64"}
    x = image = keras.Input((None, None, 1), **common)
    stride, sides, pixels = 1, st.integers(1, 3), st.tuples(st.integers(0, 9), st.integers(0, 9))
    for _ in range(draw(st.integers(1, 4))):
        match draw(st.sampled_from(["crop", "pad", "conv", "pool", "up", "branches", "skip"])):
            case "crop":
                x = layers.Cropping2D((draw(pixels), draw(pixels)), **common)(x)
            case "pad":
                x = layers.ZeroPadding2D((draw(pixels), draw(pixels)), **common)(x)
            case "conv":
                step, padding = draw(sides), draw(st.sampled_from(["same", "valid"]))
                x = layers.Conv2D(3, draw(sides), step, padding, activation="tanh", **common)(x)
                stride *= step
            case "pool":
                x, stride = (
                    layers.AveragePooling2D(2, padding=draw(st.sampled_from(["same", "valid"])), **common)(x),
                    2 * stride,
                )
            case "up" if stride % 2 == 0:
                x, stride = layers.UpSampling2D(2, **common)(x), stride // 2
            case "branches":
                cut = draw(st.integers(0, 3))
                near = layers.Cropping2D(((2 * cut, 0), (0, 2 * cut)), **common)(x)
                x = layers.Concatenate(**common)([near, layers.Cropping2D(cut, **common)(x)])
            case "skip":
                deep = layers.Conv2D(2, 3, padding="same", activation="tanh", **common)(
                    layers.MaxPooling2D(2, **common)(x)
                )
                x = layers.Concatenate(**common)([x, layers.UpSampling2D(2, **common)(deep)])
    return randomize(keras.Model(image, layers.Conv2D(2, draw(sides), **common)(x)))


@pytest.mark.extended
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_croppings_wide_paddings_and_enlarged_maps_leave_no_trace(data):
    fcn = odd_net(data.draw)
    placed = zoo.geometry(fcn)
    reach, tile = int(max(placed.receptive_field)), data.draw(st.integers(max(placed.stride), 40))
    size = [data.draw(st.integers(0, 20)) for _ in range(2)]
    size = next(
        (tuple(tile + reach + extra + more for extra in size) for more in range(60)
         if placed.fits(*(tile + reach + extra + more for extra in size))),
        None,
    )  # fmt: skip
    assume(size is not None)
    image = np.random.default_rng(0).normal(size=(*size, 1))
    whole = np.asarray(fcn(image[None]))[0]
    assert relative_error(zoo.scan(fcn, image, tile=tile).scores, whole) <= 1e-9


def test_a_crop_at_the_front_and_padding_behind_it():
    """Each alone, at every tile: the first part's grid begins later, the padding nearer than the field says."""
    common = {"dtype": "float64"}
    image = keras.Input((None, None, 1), **common)
    cropped = layers.Cropping2D(((7, 0), (5, 6)), **common)(image)
    padded = layers.ZeroPadding2D(((3, 9), (9, 3)), **common)(cropped)
    nets = [cropped, padded, layers.ZeroPadding2D(11, **common)(image)]
    nets.append(layers.UpSampling2D(4, **common)(layers.Conv2D(2, 7, 4, "same", **common)(image)))
    pixels = np.random.default_rng(0).normal(size=(40, 44, 1))
    for x in nets:
        fcn = randomize(keras.Model(image, layers.Conv2D(2, 3, **common)(x)))
        whole = np.asarray(fcn(pixels[None]))[0]
        for tile in (3, 5, 16):
            assert relative_error(zoo.scan(fcn, pixels, tile=tile).scores, whole) <= 1e-9


def test_the_example_of_the_page_on_tiles():
    """docs/tiles.md, and its figure: two convolutions of 3 at stride 2, each padded by a row at both ends."""
    x = image = keras.Input((32, 32, 1))
    for _ in range(2):
        x = layers.Conv2D(2, 3, 2)(layers.ZeroPadding2D(1)(x))
    grid = Grid.of(Network.of(keras.Model(image, x)), (32, 32))
    assert grid.shape == (8, 8) and grid.geometry.receptive_field == (7, 7) and grid.geometry.stride == (4, 4)
    (part,) = (each for each in parts_of(grid.geometry, 0, 2) if each.cells.start == 4)
    assert part == AxisPart(cells=slice(4, 6), pixels=slice(12, 24), inner=slice(1, 3))
    # Cells 3 and 4, as in the figure.
    alone = part_of(grid.geometry, 0, 3), part_of(grid.geometry, 0, 4)
    assert min(each.pixels.start for each in alone) == 8 and max(each.pixels.stop for each in alone) == 20


@pytest.mark.extended
def test_padding_free_twins_in_tiles():
    twin = zoo.convolutionalize(randomize(zoo.build("resnet20_cifar10")), padding="valid")
    reach = int(max(zoo.geometry(twin).receptive_field))
    image = noise(reach + 37, reach + 51, 3)
    whole = np.asarray(twin(image[None]))[0]
    assert len(list(Grid.of(Network.of(twin), image.shape[:2]).tiles(19))) > 4
    assert relative_error(zoo.scan(twin, image, tile=19).scores, whole) <= 1e-5


@settings(max_examples=10, deadline=None)
@given(tile=st.integers(4, 40), height=st.integers(60, 90), width=st.integers(60, 90))
def test_a_twin_of_strided_branches_in_tiles(strided_twin, tile, height, width):
    image = np.random.default_rng(0).normal(size=(height, width, 1))
    whole = np.asarray(strided_twin(image[None]))[0]
    assert relative_error(zoo.scan(strided_twin, image, tile=tile).scores, whole) <= 1e-9


@pytest.fixture(scope="module")
def strided_twin():
    """Of a 3x3 SAME convolution beside a 1x1, both at stride 2, twice."""
    common = {"dtype": "float64"}
    x = image = keras.Input((16, 16, 1), **common)
    for filters in (3, 4):
        shortcut = layers.Conv2D(filters, 1, 2, "same", **common)(x)
        x = layers.Conv2D(filters, 3, 2, "same", activation="tanh", **common)(x)
        x = layers.Add(**common)([layers.Conv2D(filters, 3, padding="same", **common)(x), shortcut])
    x = layers.Dense(2, **common)(layers.GlobalAveragePooling2D(**common)(x))
    return zoo.convolutionalize(randomize(keras.Model(image, x)), padding="valid")


MODULE = {"name": "a", "conv1": 4, "reduce3": 3, "conv3": 4, "reduce5": 2, "conv5": 3, "pool_proj": 2}
STAGES = [{"blocks": 2, "width": 4, "filters": 16}, {"blocks": 1, "width": 8, "filters": 32, "stride": 2}]
STEM = {"kernel": 3, "stride": 2, "filters": 8, "pool": {"kind": "max", "size": 3, "stride": 2}}
FIRES = [{"squeeze": 3, "expand": 6, "pool": {"kind": "max", "size": 3, "stride": 2}}, {"squeeze": 4, "expand": 8}]
FAMILIES = {
    "nin_mnist_bn": {},
    "nin_mnist_valid": {},
    "inception_cifar10": {"modules": [{**MODULE, "pool": "max 3x3/2"}, {**MODULE, "name": "b"}]},
    "resnet164_v1_cifar10": {"stages": STAGES},
    "resnet29_cifar10": {"stages": STAGES},
    "resnet20_cifar10": {},
    "squeezenet1_1": {"stem": STEM, "fires": FIRES, "image_size": (40, 40), "num_classes": 5},
}


@pytest.mark.parametrize("name", some_by_default(FAMILIES, "squeezenet1_1"))
def test_every_family_in_tiles_is_the_whole(name):
    fcn = zoo.convolutionalize(randomize(zoo.build(name, **FAMILIES[name])))
    reach = int(max(zoo.geometry(fcn).receptive_field))
    image = noise(reach + 37, reach + 50, fcn.input_shape[-1])
    whole = np.asarray(fcn(image[None]))[0]
    scanned = zoo.scan(fcn, image, tile=29)
    assert len(list(Grid.of(Network.of(fcn), image.shape[:2]).tiles(29))) > 1
    assert scanned.scores.dtype == np.float32
    assert relative_error(scanned.scores, whole) <= 1e-5


def padding_free(window=(9, 8), stride=(3, 2)):
    image = keras.Input((*window, 1), dtype="float64")
    x = layers.Conv2D(3, (3, 2), stride, activation="tanh", dtype="float64")(image)
    x = layers.Flatten(dtype="float64")(x)
    return randomize(keras.Model(image, layers.Dense(2, dtype="float64")(x)))


def crops(model, image, tops, lefts):
    """The classifier on every crop, one by one."""
    height, width = model.input_shape[1:3]
    return np.array(
        [[np.asarray(model(image[None, top : top + height, left : left + width]))[0] for left in lefts] for top in tops]
    )


@pytest.mark.parametrize("size", [(9, 8), (30, 26), (31, 27), (32, 26), (10, 9)])
@pytest.mark.parametrize("tile", [4, 9, 100])
def test_a_shifted_border_adds_the_windows_flush_with_it(size, tile):
    model = padding_free()
    image = np.random.default_rng(0).normal(size=(*size, 1))
    tops = list(range(0, size[0] - 8, 3))
    lefts = list(range(0, size[1] - 7, 2))
    tops += [size[0] - 9] if tops[-1] != size[0] - 9 else []
    lefts += [size[1] - 8] if lefts[-1] != size[1] - 8 else []
    result = zoo.scan(model, image, tile=tile, border="shift")
    assert relative_error(result.scores, crops(model, image, tops, lefts)) <= 1e-9
    assert result.uncovered == (0, 0, 0, 0) and result.border == "shift"
    boxes = [[result.cell_box(row, column)[:2] for column in range(len(lefts))] for row in range(len(tops))]
    assert boxes == [[(top, left) for left in lefts] for top in tops]


@pytest.mark.parametrize("size", [(9, 8), (30, 26), (31, 27), (32, 26), (10, 9)])
@pytest.mark.parametrize("tile", [4, 9, 100])
def test_a_reflected_border_mirrors_no_more_than_it_needs(size, tile):
    model = padding_free()
    image = np.random.default_rng(0).normal(size=(*size, 1))
    added = [(window - side) % stride for side, window, stride in zip(size, (9, 8), (3, 2), strict=True)]
    mirrored = np.concatenate([image, image[-2 : -2 - added[0] : -1]])
    mirrored = np.concatenate([mirrored, mirrored[:, -2 : -2 - added[1] : -1]], axis=1)
    tops, lefts = range(0, mirrored.shape[0] - 8, 3), range(0, mirrored.shape[1] - 7, 2)
    result = zoo.scan(model, image, tile=tile, border="reflect")
    assert relative_error(result.scores, crops(model, mirrored, tops, lefts)) <= 1e-9
    assert result.uncovered == (0, 0, 0, 0) and result.image_size == size
    assert result.cell_box(len(tops) - 1, len(lefts) - 1) == (tops[-1], lefts[-1], tops[-1] + 9, lefts[-1] + 8)


@pytest.mark.parametrize("border", ["none", "shift", "reflect"])
@pytest.mark.parametrize("stride", [1, 2, (4, 3), (6, 1)])
@pytest.mark.extended
def test_finer_grids_have_the_same_borders(stride, border):
    """Of a network of stride 12 x 6 and windows of 21 x 16, on an image that neither fits; whole and in tiles."""
    common, window, step = {"dtype": "float64"}, (21, 16), np.broadcast_to(stride, 2)
    image = keras.Input((*window, 1), **common)
    x = layers.Conv2D(3, (5, 3), (4, 3), activation="tanh", **common)(image)
    x = layers.MaxPooling2D(2, (3, 2), **common)(x)
    model = randomize(keras.Model(image, layers.Dense(2, **common)(layers.Flatten(**common)(x))))
    pixels = np.random.default_rng(0).normal(size=(40, 38, 1))
    seen = pixels
    if border == "reflect":
        added = [-(side - of) % by for side, of, by in zip((40, 38), window, step, strict=True)]
        seen = np.pad(pixels, [(0, added[0]), (0, added[1]), (0, 0)], "reflect")
    starts = [list(range(0, side - of + 1, by)) for side, of, by in zip(seen.shape, window, step, strict=False)]
    for each, side, of in zip(starts, (40, 38), window, strict=True):
        each += [side - of] if border == "shift" and each[-1] != side - of else []
    wanted = crops(model, seen, *starts)
    for tile in (100, 12, 6):
        result = zoo.scan(model, pixels, tile=tile, stride=stride, border=border)
        assert result.geometry.stride == tuple(step)
        assert relative_error(result.scores, wanted) <= 1e-9
    last = result.cell_box(len(starts[0]) - 1, len(starts[1]) - 1)
    assert last == (starts[0][-1], starts[1][-1], starts[0][-1] + 21, starts[1][-1] + 16)
    assert border == "none" or result.uncovered == (0, 0, 0, 0)


@pytest.mark.extended
@pytest.mark.parametrize("name", ["nin_mnist_bn", "resnet29_cifar10"])
def test_finer_grids_of_padded_nets_in_tiles(name):
    fcn = zoo.convolutionalize(randomize(zoo.build(name, **FAMILIES[name])))
    size = [side + int(max(zoo.geometry(fcn).receptive_field)) for side in (33, 38)]
    image = noise(*size, fcn.input_shape[-1])
    half = zoo.geometry(fcn).stride[0] // 2
    whole = np.asarray(fcn(image[None, half:, half:]))[0]
    result = zoo.scan(fcn, image, tile=20, stride=half)
    assert relative_error(result.scores[1::2, 1::2], whole) <= 1e-5
    for border in ("reflect", "shift"):
        in_tiles, at_once = (zoo.scan(fcn, image, tile=tile, stride=half, border=border) for tile in (20, 200))
        assert relative_error(in_tiles.scores, at_once.scores) <= 1e-5 and in_tiles.uncovered == (0, 0, 0, 0)


def test_a_border_without_windows_is_said():
    model = padding_free()
    image = np.random.default_rng(0).normal(size=(31, 27, 1))
    result = zoo.scan(model, image)
    assert relative_error(result.scores, crops(model, image, range(0, 23, 3), range(0, 20, 2))) <= 1e-9
    assert result.uncovered == (0, 0, 1, 1)


@pytest.mark.parametrize("border", ["reflect", "shift"])
@pytest.mark.parametrize(
    "name", some_by_default(["nin_mnist_valid", "nin_mnist_bn", "resnet29_cifar10", "squeezenet1_1"])
)
def test_borders_do_not_depend_on_tiles(name, border):
    fcn = zoo.convolutionalize(randomize(zoo.build(name, **FAMILIES[name])))
    for extra in (1, 2, 3):
        image = noise(90 + extra, 83 + extra, fcn.input_shape[-1])
        whole = zoo.scan(fcn, image, tile=100, border=border)
        tiled = zoo.scan(fcn, image, tile=24, border=border)
        assert whole.uncovered == (0, 0, 0, 0)
        assert relative_error(tiled.scores, whole.scores) <= 1e-5


def test_a_grid_that_begins_inside_the_image_is_mirrored_at_its_top_too():
    x = image = keras.Input((None, None, 1))
    x = layers.Conv2D(2, 3, 2)(layers.Cropping2D(((2, 0), (1, 0)))(x))
    result = zoo.scan(randomize(keras.Model(image, x)), noise(20, 20, 1), border="reflect")
    assert result.uncovered == (0, 0, 0, 0) and result.cell_box(0, 0)[:2] == (0, 0)


def test_the_colours_follow_a_shifted_row():
    """Stride 4, window 8, 26 pixels: windows at 0, 4, .., 16 and, shifted, 18; 16 and 18 meet at 17 + 4."""
    image = keras.Input((8, 8, 1))
    model = randomize(keras.Model(image, layers.Dense(2)(layers.Flatten()(layers.Conv2D(3, 4, 4)(image)))))
    result = zoo.scan(model, noise(26, 24, 1), border="shift")
    rows, columns = result.cells_of_pixels()
    assert rows.tolist() == [-1] * 2 + [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 3 + [5] * 3 + [-1] * 2
    assert columns.tolist() == [-1] * 2 + sorted([*range(5)] * 4) + [-1] * 2


def test_bad_borders_are_refused():
    with pytest.raises(InputError, match="border: received 'mirror'; accepted: none, reflect, shift"):
        zoo.scan(padding_free(), np.zeros((30, 30)), border="mirror")
    image = keras.Input((12, 12, 1))
    x = layers.Multiply()([image, layers.GlobalAveragePooling2D(keepdims=True)(image)])
    model = randomize(keras.Model(image, layers.Dense(3)(layers.Flatten()(layers.Conv2D(2, 3, 3)(x)))))
    with pytest.raises(InputError, match="pools over the whole image"):
        zoo.scan(model, noise(20, 20), border="shift")
    assert zoo.scan(model, noise(20, 20), border="reflect").uncovered == (0, 0, 0, 0)
