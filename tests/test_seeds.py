import json
import os
from itertools import permutations

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.cli import main
from zoo.cli.runs import _parse_seeds
from zoo.config import load_config
from zoo.errors import InputError
from zoo.seeds import compare_filters, match, run_seeds

OVERRIDES = ["train.epochs=1", "train.batch_size=400", "canvas.count=4", "canvas.size=null"]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """The folder of three seeds' runs, of which the middle one was there before."""
    folder = tmp_path_factory.mktemp("seeds") / "runs"
    config = load_config("nin_digits", OVERRIDES)
    run_seeds(config, (1,), folder)
    before = os.stat(folder / "seed-1" / "model.keras").st_mtime_ns
    result = run_seeds(config, (0, 1, 2), folder)
    assert os.stat(folder / "seed-1" / "model.keras").st_mtime_ns == before
    return folder, result


def test_seeds_json_is_the_mean_and_deviation_of_the_runs(seeds, capsys):
    folder, result = seeds
    assert json.loads((folder / "seeds.json").read_text()) == result
    values = [json.loads((folder / f"seed-{k}" / "evaluation.json").read_text())["accuracy"] for k in range(3)]
    assert result["n"] == 3 and result["seeds"] == [0, 1, 2] and result["accuracy"]["values"] == values
    assert result["accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert result["accuracy"]["deviation"] == pytest.approx(np.std(values, ddof=1)) and len(set(values)) > 1
    assert {path.name for path in folder.iterdir()} == {
        "seed-0", "seed-1", "seed-2", "seeds.json", "filters_match.png"
    }  # fmt: skip
    with Image.open(folder / "filters_match.png") as picture:
        assert picture.size[0] > 600 and len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_a_run_among_seeds_is_the_run_by_itself(seeds, tmp_path):
    alone = zoo.run(load_config("nin_digits", [*OVERRIDES, "seed=2"]), tmp_path / "alone")
    for a, b in zip(zoo.load(alone.folder).weights, zoo.load(seeds[0] / "seed-2").weights, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_the_command_prints_what_the_finished_seeds_reached(seeds, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "nin_digits", *OVERRIDES, "--seeds", "0,2", "--workdir", str(seeds[0])])
    out = capsys.readouterr().out
    pair = [seeds[1]["accuracy"]["values"][k] for k in (0, 2)]
    wanted = f"test accuracy {100 * np.mean(pair):.2f} ± {100 * np.std(pair, ddof=1):.2f} % (n = 2 seeds)"
    assert not stopped.value.code and wanted in out and "this run is finished" in out
    assert "matched between seeds: cosine" in out and "random filters" in out


def test_other_runs_are_not_mixed_in(seeds, tmp_path):
    with pytest.raises(InputError, match="holds another config's run: train.epochs: 1 there, 2 asked for"):
        run_seeds(load_config("nin_digits", [*OVERRIDES, "train.epochs=2"]), (5,), seeds[0])
    with pytest.raises(InputError, match="holds a single run"):
        run_seeds(load_config("nin_digits", OVERRIDES), (5,), seeds[0] / "seed-0")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds thesis.txt"):
        run_seeds(load_config("nin_digits", OVERRIDES), (5,), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("text", "wanted"), [("0-4", (0, 1, 2, 3, 4)), ("0,2,5", (0, 2, 5)), ("3", (3,)), ("7, 0-2,1", (0, 1, 2, 7))]
)
def test_seeds_are_a_range_or_a_list(text, wanted):
    assert _parse_seeds(text) == wanted


@pytest.mark.parametrize("text", ["", "4-0", "a", "0-", "-1", "0-999999", "1.5", "0,,1"])
def test_other_seeds_are_refused_in_one_line(text, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "nin_digits", f"--seeds={text}"])
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and "accepted: such as 0-4" in err and err.count("\n") == 1


def test_the_matching_is_the_best_of_all():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 5, 4))
    columns, similarities = match(a, b)

    def cosine(x, y):
        return x @ y / np.sqrt((x @ x) * (y @ y))

    best = max(permutations(range(5)), key=lambda order: sum(cosine(a[k], b[order[k]]) for k in range(5)))
    assert tuple(columns) == best
    np.testing.assert_allclose(similarities, [cosine(a[k], b[best[k]]) for k in range(5)])


def test_equal_filters_in_another_order_and_scale_match_wholly_and_random_ones_as_random():
    generator = np.random.default_rng(1)
    kernel = generator.normal(size=(3, 3, 2, 12))
    order = generator.permutation(12)
    agreement = compare_filters([kernel, 2.5 * kernel[..., order]])
    np.testing.assert_array_equal(order[agreement.matches[0, 1]], np.arange(12))
    assert agreement.mean == pytest.approx(1)
    unrelated = compare_filters([generator.normal(size=(3, 3, 2, 40)) for _ in range(3)])
    assert unrelated.mean == pytest.approx(unrelated.random.mean(), abs=0.03)
    narrow = generator.normal(size=(18, 3)) @ generator.normal(size=(3, 80))
    smooth = compare_filters([part.reshape(3, 3, 2, 40) for part in np.split(narrow, 2, axis=1)])
    assert smooth.mean > smooth.random.mean() + 0.2
    assert smooth.mean == pytest.approx(smooth.random_same_covariance.mean(), abs=0.03)
    dead = np.zeros((3, 3, 2, 12))
    assert compare_filters([kernel, dead]).mean == 0
