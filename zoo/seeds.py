"""One config trained with several seeds: mean and deviation."""

import logging
import re
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import keras

from zoo.config import Config, load_config
from zoo.errors import InputError
from zoo.experiment import run
from zoo.files import is_trace, write_json
from zoo.progress import note, say
from zoo.run_directory import first_difference, numbered
from zoo.settings import own_settings
from zoo.training.distribution import environment

# What lies beside the runs; version 1 drew the filters' matching too.
_FILES = r"seeds\.json|filters_match\.png"


@own_settings()
def run_seeds(
    config: Config, seeds: tuple[int, ...], workdir: str | Path | None = None, fresh: bool = False
) -> dict[str, Any]:
    """Train one run directory a seed in `workdir`, and write seeds.json.

    Finished runs are not repeated, and an unfinished one goes on, as with a single run.

    Args:
        config: the experiment; its own seed is not used.
        seeds: the seeds.
        workdir: the folder of the run directories; default: runs/<name>-<digest of the config>-seeds.
        fresh: train anew in a numbered folder beside it.

    Returns:
        What seeds.json holds.

    Raises:
        InputError: where the folder holds anything else, or another config's runs.
    """
    if config.train.distribute and environment()[1] > 1:
        raise InputError("--seeds: trains in one process; accepted with several: one command a seed, seed=0 and so on")
    folder, config = folder_of(config, workdir, fresh), config.model_copy(update={"seed": 0})
    _check(folder, config)
    # Each run traces its own functions, which TensorFlow takes for a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    reports = {}
    for seed in seeds:
        note(f"seed {seed} of {', '.join(map(str, seeds))}")
        finished = run(config.model_copy(update={"seed": seed}), folder / f"seed-{seed}")
        if finished is None:
            raise RuntimeError("a training of one process gave no result")
        reports[seed] = finished.headline
        keras.backend.clear_session()
    keys = tuple(reports[seeds[0]])
    result = {"config": config.name, "seeds": list(seeds), "n": len(seeds)}
    for key in keys:
        values = [reports[seed][key] for seed in seeds]
        deviation = stdev(values) if len(values) > 1 else None
        result[key] = {"mean": mean(values), "deviation": deviation, "values": values}
    lines = [f"{config.name}: {_summary(result, key)}" for key in keys]
    write_json(folder / "seeds.json", result)
    say("\n".join([*lines, f"wrote {folder / 'seeds.json'}"]))
    return result


def folder_of(config: Config, workdir: str | Path | None = None, fresh: bool = False) -> Path:
    """The folder of several seeds' runs; see `run_seeds`."""
    config = config.model_copy(update={"seed": 0})
    folder = Path(workdir) if workdir is not None else Path("runs") / f"{config.name}-{config.digest}-seeds"
    return numbered(folder) if fresh else folder


def _summary(result: dict[str, Any], key: str) -> str:
    """The mean and the sample's standard deviation, with the number of runs."""
    row, percent = result[key], key.endswith("accuracy")
    scale, places, unit = (100, 2, " %") if percent else (1, 4, "")
    deviation = "" if row["deviation"] is None else f" ± {scale * row['deviation']:.{places}f}"
    name = "test accuracy" if key == "accuracy" else key.replace("_", " ")
    return f"{name} {scale * row['mean']:.{places}f}{deviation}{unit} (n = {result['n']} seeds)"


def _check(folder: Path, config: Config) -> None:
    """Check that the folder holds nothing but runs of this config."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"folder {str(folder)!r}: is a file; accepted: a new or empty folder")
    if (folder / "config.yaml").is_file():
        raise InputError(f"folder {str(folder)!r}: holds a single run; accepted with --seeds: a new or empty folder")
    own = rf"seed-\d+|{_FILES}" if any(folder.glob("seed-*/config.yaml")) else r"seed-\d+"
    for path in sorted(folder.glob("*")):
        if not (re.fullmatch(own, path.name) or is_trace(path, _FILES)):
            raise InputError(f"folder {str(folder)!r}: holds {path.name}; accepted with --seeds: a new or empty folder")
        if (path / "config.yaml").is_file():
            there = load_config(path / "config.yaml").model_copy(update={"seed": 0})
            if difference := first_difference(there, config):
                raise InputError(f"folder {str(path)!r}: holds another config's run: {difference}")
