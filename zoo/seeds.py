"""One config trained with several seeds: mean and deviation, and whether the runs find the same first filters."""

import logging
import re
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import keras
import numpy as np
from scipy.optimize import linear_sum_assignment

from zoo import model_files, plots
from zoo.config import Config, load_config
from zoo.errors import InputError
from zoo.experiment import first_difference, numbered, run
from zoo.files import is_trace, write_json
from zoo.progress import say
from zoo.settings import own_settings
from zoo.training.distribution import environment

_DRAWS = 20
_FILES = r"seeds\.json|filters_match\.png"


@own_settings()
def run_seeds(
    config: Config, seeds: tuple[int, ...], workdir: str | Path | None = None, fresh: bool = False
) -> dict[str, Any]:
    """Train one run directory a seed in `workdir`, and write seeds.json and, for two or more, filters_match.png.

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
    config = config.model_copy(update={"seed": 0})
    folder = Path(workdir) if workdir is not None else Path("runs") / f"{config.name}-{config.digest}-seeds"
    if fresh:
        folder = numbered(folder)
    _check(folder, config)
    # Each run traces its own functions, which TensorFlow takes for a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    reports, models = {}, {}
    for seed in seeds:
        say(f"seed {seed} of {', '.join(map(str, seeds))}")
        reports[seed] = run(config.model_copy(update={"seed": seed}), folder / f"seed-{seed}").evaluation
        keras.backend.clear_session()
        models[seed] = model_files.load(folder / f"seed-{seed}")
    keys = ("accuracy", "loss", *(["canvas_accuracy"] if "canvas_accuracy" in reports[seeds[0]] else []))
    result = {"config": config.name, "seeds": list(seeds), "n": len(seeds)}
    for key in keys:
        values = [reports[seed][key] for seed in seeds]
        deviation = stdev(values) if len(values) > 1 else None
        result[key] = {"mean": mean(values), "deviation": deviation, "values": values}
    lines = [f"{config.name}: {_summary(result, key)}" for key in keys]
    if len(seeds) > 1 and plots.first_convolution(models[seeds[0]]) is not None:
        kernels = [plots.first_convolution(models[seed])[1] for seed in seeds]
        agreement = compare_filters(kernels)
        random = {"random": agreement.random, "random, same covariance": agreement.random_same_covariance}
        picture = folder / "filters_match.png"
        plots.filter_matches(kernels, agreement.similarities, agreement.matches, random, seeds, picture)
        result["filters"] = agreement.to_dict(seeds)
        lines.append(agreement.sentence())
    write_json(folder / "seeds.json", result)
    say("\n".join([*lines, f"wrote {folder / 'seeds.json'}"]))
    return result


def _summary(result: dict[str, Any], key: str) -> str:
    """The mean and the sample's standard deviation, with the number of runs."""
    row, percent = result[key], key != "loss"
    scale, places, unit = (100, 2, " %") if percent else (1, 4, "")
    deviation = "" if row["deviation"] is None else f" ± {scale * row['deviation']:.{places}f}"
    name = "test accuracy" if key == "accuracy" else key.replace("_", " ")
    return f"{name} {scale * row['mean']:.{places}f}{deviation}{unit} (n = {result['n']} seeds)"


def _check(folder: Path, config: Config) -> None:
    """See that the folder holds nothing but runs of this config."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"folder {str(folder)!r}: is a file; accepted: a new or empty folder")
    if (folder / "config.yaml").is_file():
        raise InputError(f"folder {str(folder)!r}: holds a single run; accepted with --seeds: a new or empty folder")
    own = ("seeds.json", "filters_match.png") if list(folder.glob("seed-*/config.yaml")) else ()
    for path in sorted(folder.glob("*")):
        if not (re.fullmatch(r"seed-\d+", path.name) or path.name in own or is_trace(path, _FILES)):
            raise InputError(f"folder {str(folder)!r}: holds {path.name}; accepted with --seeds: a new or empty folder")
        if (path / "config.yaml").is_file():
            there = load_config(path / "config.yaml").model_copy(update={"seed": 0})
            if difference := first_difference(there.model_dump(mode="json"), config.model_dump(mode="json")):
                raise InputError(f"folder {str(path)!r}: holds another config's run: {difference}")


@dataclass(frozen=True)
class FilterAgreement:
    """How alike the first layers of k runs are, filter by filter, after the best matching of each pair.

    `shape`: (h, w, channels, n). `matches[i, j]`: the n filters of run j in the order of those of run i that they
    match; `similarities[i, j]`: their cosine similarities (n,). `random`: those of filters drawn from a normal
    distribution and matched likewise; `random_same_covariance`: of filters drawn with the runs' own covariance, which
    are as smooth as theirs, so that what exceeds them is due to the single filters.
    """

    shape: tuple[int, ...]
    matches: dict[tuple[int, int], np.ndarray]
    similarities: dict[tuple[int, int], np.ndarray]
    random: np.ndarray
    random_same_covariance: np.ndarray

    def to_dict(self, seeds: tuple[int, ...]) -> dict[str, Any]:
        """The means, as JSON holds them."""
        return {
            "shape": list(self.shape),
            "cosine": self.mean,
            "pairs": {f"{seeds[i]}-{seeds[j]}": float(self.similarities[i, j].mean()) for i, j in self._pairs},
            "random": float(self.random.mean()),
            "random_same_covariance": float(self.random_same_covariance.mean()),
        }

    @property
    def _pairs(self) -> list[tuple[int, int]]:
        return [pair for pair in self.matches if pair[0] < pair[1]]

    @property
    def mean(self) -> float:
        """The mean similarity of matched filters over all pairs of runs."""
        return float(np.mean([self.similarities[pair] for pair in self._pairs]))

    def sentence(self) -> str:
        """The means on one line."""
        height, width, channels, count = self.shape
        return (
            f"first layer, {count} filters of {height} x {width} x {channels}, matched between seeds: cosine "
            f"{self.mean:.3f}; random filters {self.random.mean():.3f}, "
            f"of the same covariance {self.random_same_covariance.mean():.3f}"
        )


def compare_filters(kernels: list[np.ndarray]) -> FilterAgreement:
    """Match the filters of each pair of kernels (h, w, channels, n), and random ones likewise."""
    rows = [np.reshape(kernel, (-1, kernel.shape[-1])).T.astype(np.float64) for kernel in kernels]
    matches, similarities = {}, {}
    for i, j in combinations(range(len(rows)), 2):
        matches[i, j], similarities[i, j] = match(rows[i], rows[j])
        matches[j, i] = np.argsort(matches[i, j])
        similarities[j, i] = similarities[i, j][matches[j, i]]
    pooled = np.concatenate([_unit(each) for each in rows])
    generator = np.random.default_rng(0)
    count, size = rows[0].shape
    baselines = []
    for covariance in (np.eye(size), pooled.T @ pooled / len(pooled)):
        draws = generator.multivariate_normal(np.zeros(size), covariance, (_DRAWS, 2, count), method="eigh")
        baselines.append(np.concatenate([match(*pair)[1] for pair in draws]))
    return FilterAgreement(kernels[0].shape, matches, similarities, *baselines)


def match(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair the rows of (n, d) and (n, d) so that the sum of cosine similarities is the largest there is.

    Returns:
        The row of `b` for each of `a`, (n,), and the similarity of each pair, (n,).
    """
    cosines = _unit(a) @ _unit(b).T
    _, columns = linear_sum_assignment(cosines, maximize=True)
    return columns, cosines[np.arange(len(a)), columns]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny)
