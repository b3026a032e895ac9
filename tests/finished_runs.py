"""Directories of finished runs, made without a training."""

import json
import shutil

import zoo
from zoo import data, shipped
from zoo.config import load_config
from zoo.environment import describe_environment
from zoo.evaluation import evaluate


def finished_run(folder, *overrides, config="nin_digits"):
    """A run directory as if the training of bundled digits had given the shipped weights of `nin_digits`."""
    resolved = load_config(config, overrides)
    dataset = data.load(resolved)
    folder.mkdir()
    shutil.copyfile(shipped.shipped_file("nin_digits"), folder / "model.keras")
    (folder / "config.yaml").write_text(resolved.to_yaml())
    times = {"began": "2026-11-26T10:00:00+00:00", "ended": "2026-11-26T10:03:00+00:00"}
    (folder / "environment.json").write_text(json.dumps({**describe_environment(dataset), **times}))
    measured = evaluate(zoo.load(folder), dataset.test, dataset.class_names)
    report = {
        "config": resolved.name,
        "seed": resolved.seed,
        **measured.to_dict(),
        "protocol": dataset.protocol,
        "weights": "last",
        "epochs": resolved.train.epochs,
        "precision": "float32",
        "data_fingerprint": dataset.fingerprint,
        "test_fingerprint": dataset.test_fingerprint,
        "faults": [],
    }
    change_report(folder, **report)
    return folder


def change_report(folder, **changes):
    """Change what a run's evaluation.json says."""
    file = folder / "evaluation.json"
    before = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**before, **changes}))
