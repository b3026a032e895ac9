"""What a config learns in how many minutes: the table's figures beside those of the training itself."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import minutes  # noqa: E402
from record import Deviation, Record  # noqa: E402

import zoo  # noqa: E402

pytestmark = pytest.mark.extended


def measured(monkeypatch, path, *arguments):
    config = ("--config", "nin_digits", "train.epochs=3", "canvas=null")
    monkeypatch.setattr(sys, "argv", ["minutes.py", *config, *arguments, "--record", str(path)])
    minutes.main()
    return Record.model_validate_json(path.read_bytes())


def test_the_table_has_what_the_training_reached(tmp_path, monkeypatch):
    record = measured(monkeypatch, tmp_path / "record.json", "--threshold", "20", "--views", "--seeds", "0", "1")
    (row,) = record.rows
    assert record.n == 360 and record.seeds == [0, 1]
    overrides = ["train.epochs=3", "canvas=null", "data.validation=0"]
    configs = [zoo.load_config("nin_digits", [*overrides, f"seed={seed}"]) for seed in (0, 1)]
    accuracies = [100 * zoo.run(each, tmp_path / str(each.seed)).evaluation["accuracy"] for each in configs]
    assert isinstance(row["test accuracy, %"], Deviation)
    assert row["test accuracy, %"].mean == pytest.approx(sum(accuracies) / 2, abs=0.01)
    assert 0 < row["minutes to 20 %"].mean <= row["minutes"].mean < 5
    assert 0 < row["over six views, %"].mean <= 100 and row["TFLOP/s"].mean > 0


def test_a_threshold_that_is_never_reached_has_no_minutes(tmp_path, monkeypatch):
    (row,) = measured(monkeypatch, tmp_path / "record.json", "--threshold", "101").rows
    assert row["minutes to 101 %"] is None and isinstance(row["test accuracy, %"], float)
