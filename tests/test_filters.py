"""The benchmark that matches the first filters of several seeds' runs."""

import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from filters import compare_filters, draw, match  # noqa: E402


def test_the_matching_is_the_best_of_all():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 5, 4))
    columns, similarities = match(a, b)

    def cosine(x, y):
        return x @ y / np.sqrt((x @ x) * (y @ y))

    best = max(permutations(range(5)), key=lambda order: sum(cosine(a[k], b[order[k]]) for k in range(5)))
    assert tuple(columns) == best
    np.testing.assert_allclose(similarities, [cosine(a[k], b[best[k]]) for k in range(5)])


def test_equal_filters_in_another_order_and_scale_match_wholly_and_random_ones_as_random(tmp_path):
    generator = np.random.default_rng(1)
    kernel = generator.normal(size=(3, 3, 2, 12))
    order = generator.permutation(12)
    agreement = compare_filters([kernel, 2.5 * kernel[..., order]])
    np.testing.assert_array_equal(order[agreement.matches[0, 1]], np.arange(12))
    assert agreement.between_runs.mean() == pytest.approx(1)
    kernels = [generator.normal(size=(3, 3, 2, 40)) for _ in range(3)]
    unrelated = compare_filters(kernels)
    assert unrelated.between_runs.mean() == pytest.approx(unrelated.random.mean(), abs=0.03)
    narrow = generator.normal(size=(18, 3)) @ generator.normal(size=(3, 80))
    smooth = compare_filters([part.reshape(3, 3, 2, 40) for part in np.split(narrow, 2, axis=1)])
    assert smooth.between_runs.mean() > smooth.random.mean() + 0.2
    assert smooth.between_runs.mean() == pytest.approx(smooth.same_covariance.mean(), abs=0.03)
    dead = np.zeros((3, 3, 2, 12))
    assert compare_filters([kernel, dead]).between_runs.mean() == 0
    draw(kernels, unrelated, [0, 1, 2], tmp_path / "match.png")
    with Image.open(tmp_path / "match.png") as picture:
        assert picture.size[0] > 600 and len(np.unique(np.asarray(picture.convert("L")))) > 50
