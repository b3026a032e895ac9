"""Every head that a config may have: built, counted, trained, converted, scanned, pooled over boxes."""

from pathlib import Path

import numpy as np
import pytest
from conftest import noise, randomize
from small_nets import FIXED_KINDS, HEAD_SECTIONS, head_kinds

import zoo
from zoo.catalogue import resolve
from zoo.checks import check_conversion, check_logits, check_padding_free, check_training_step
from zoo.errors import InputError
from zoo.large_images import score_boxes
from zoo.scores import relative_error

pytestmark = pytest.mark.extended

CHECKS = (check_logits, check_training_step, check_conversion, check_padding_free)
PAGE = Path(__file__).resolve().parents[1] / "docs" / "catalogue.md"
SIZE = (14, 12)
SLIDING = [head for head in HEAD_SECTIONS if head["kind"] not in FIXED_KINDS]


def named(head):
    return " ".join(map(str, head.values()))


def section(head, **options):
    return resolve("nin_digits", image_size=SIZE, head=head, **options)


every_head = pytest.mark.parametrize("head", HEAD_SECTIONS, ids=named)
every_sliding_head = pytest.mark.parametrize("head", SLIDING, ids=named)


def test_every_kind_has_a_row_here_and_on_the_page():
    assert {head["kind"] for head in HEAD_SECTIONS} == {*head_kinds()}
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"| `{kind}`" in page for kind in head_kinds())


@every_head
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_its_logits_are_last_and_its_kernels_are_counted(head, padding):
    config = section(head, padding=padding)
    model = zoo.build(config)
    assert model.layers[-1].name == "head_logits" and model.output_shape == (None, config.num_classes)
    of_head = [layer for layer in model.layers if layer.name.startswith("head_")]
    kernels = [weight.shape for layer in of_head for weight in layer.weights if len(weight.shape) > 1]
    *size, channels = of_head[0].input.shape[1:]
    assert size[0] != size[1]
    counted = config.head.kernel_numbers(channels, tuple(size), config.num_classes)
    assert counted == sum(map(np.prod, kernels))


@every_head
def test_it_takes_images_of_any_size_or_says_that_it_does_not(head):
    config = section(head)
    if config.head.fixed_size:
        with pytest.raises(InputError, match="image_size"):
            zoo.build(config, image_size=None)
    else:
        assert np.asarray(zoo.build(config, image_size=None)(noise(2, 17, 21, 1))).shape == (2, 10)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@every_head
def test_the_checks_of_architectures_pass(head, check):
    if head["kind"] in FIXED_KINDS and check in (check_conversion, check_padding_free):
        with pytest.raises(InputError, match="layer 'head_"):
            check(section(head))
    else:
        check(section(head))


@every_sliding_head
def test_a_score_at_every_pixel_is_that_of_its_crop(head):
    model = randomize(zoo.build(section(head, padding="valid")))
    image = noise(SIZE[0] + 5, SIZE[1] + 4, 1)
    rows, columns = SIZE
    crops = [image[row : row + rows, column : column + columns] for row, column in np.ndindex(6, 5)]
    scores = zoo.scan(zoo.convolutionalize(model), image, stride=1).scores
    assert scores.shape == (6, 5, 10)
    assert relative_error(scores.reshape(30, 10), np.asarray(model(np.stack(crops)))) <= 1e-5


@every_sliding_head
def test_its_padding_free_twin_has_its_scores_at_inner_cells(head):
    model = randomize(zoo.build(section(head)))
    report = zoo.verify(model, zoo.convolutionalize(model, padding="valid"))
    assert report.same_function and report.same_as_crops and report.max_error_inner_cells <= 1e-5


@every_head
def test_boxes_have_the_answers_of_their_crops(head):
    model = randomize(zoo.build(section(head, padding="valid")))
    image = noise(30, 26, 1)
    boxes = [(0, 0, 14, 12), (6, 4, 20, 16)]
    wanted = np.asarray(model(np.stack([image[:14, :12], image[6:20, 4:16]])))
    assert relative_error(score_boxes(model, image, boxes).scores, wanted) <= 1e-5
