import json
import os

import numpy as np
import pytest

import zoo
from zoo.cli import main
from zoo.cli.train import _parse_seeds
from zoo.config import load_config
from zoo.errors import InputError
from zoo.seeds import run_seeds

pytestmark = pytest.mark.extended

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
    assert {path.name for path in folder.iterdir()} == {"seed-0", "seed-1", "seed-2", "seeds.json"}


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
