"""Whether the runs of several seeds find the same first filters: matched pairwise, beside random ones.

    python benchmarks/filters.py RUNS -o filters_match.png

RUNS is a folder that `zoo train CONFIG --seeds 0-2` made. Each pair of runs is matched so that the sum of cosine
similarities is the largest there is, and random filters likewise: of a normal distribution, and of the runs' own
covariance, which are as smooth as theirs, so that what exceeds them is due to the single filters.
"""

import argparse
import json
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from record import add_option, report
from scipy.optimize import linear_sum_assignment

_DRAWS = 20


@dataclass(frozen=True)
class Agreement:
    """How alike the first layers of several runs are, filter by filter, after the best matching of each pair.

    `matches[i, j]`: the n filters of run j in the order of those of run i that they match; `similarities[i, j]`: their
    cosine similarities (n,). `random`, `same_covariance`: those of random filters.
    """

    matches: dict[tuple[int, int], np.ndarray]
    similarities: dict[tuple[int, int], np.ndarray]
    random: np.ndarray
    same_covariance: np.ndarray

    @property
    def between_runs(self) -> np.ndarray:
        """The similarities of all pairs of runs, each once."""
        return np.concatenate([each for (i, j), each in self.similarities.items() if i < j])


def compare_filters(kernels: list[np.ndarray]) -> Agreement:
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
    return Agreement(matches, similarities, *baselines)


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


def draw(kernels: list[np.ndarray], agreement: Agreement, seeds: list[int], path: Path) -> None:
    """The first run's filters, from the best to the least matched, each above its match in every other run.

    Beside them the distribution of the similarities of all pairs of runs, and of random filters.
    """
    from matplotlib.figure import Figure

    means = np.mean([agreement.similarities[0, other] for other in range(1, len(kernels))], axis=0)
    order = np.argsort(means)[::-1]
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), 16)).round().astype(int))]
    rows, columns = len(kernels), len(chosen)
    figure = Figure(figsize=(0.62 * columns + 4.6, max(0.85 * rows + 0.6, 2.6)), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(0.62 * columns + 0.6, 4))
    axes = left.subplots(rows, columns, squeeze=False)
    for row, kernel in enumerate(kernels):
        for column, index in enumerate(chosen):
            axis, picture = axes[row, column], kernel[..., index if row == 0 else agreement.matches[0, row][index]]
            # In colour on three channels, else the mean over the channels; each filter over its own range.
            picture = picture if picture.shape[2] == 3 else picture.mean(2)
            axis.imshow((picture - picture.min()) / max(np.ptp(picture), 1e-12), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            if row:
                axis.set_xlabel(f"{agreement.similarities[0, row][index]:.2f}", fontsize=7, labelpad=1)
        axes[row, 0].set_ylabel(f"seed {seeds[row]}", fontsize=8)
    left.suptitle(f"filters of seed {seeds[0]} and what they match, from best to least; cosine similarity", fontsize=9)
    axis = right.subplots()
    for name, values in _named(agreement).items():
        weights, kind = np.full(len(values), 1 / len(values)), "stepfilled" if name == "between seeds" else "step"
        bins = np.linspace(min(each.min() for each in _named(agreement).values()), 1, 31)
        axis.hist(values, bins, weights=weights, histtype=kind, label=f"{name}: mean {values.mean():.3f}")
    axis.set(xlabel="cosine similarity of matched filters", ylabel="share")
    axis.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.savefig(path, dpi=120)


def _named(agreement: Agreement) -> dict[str, np.ndarray]:
    return {
        "between seeds": agreement.between_runs,
        "random": agreement.random,
        "random, same covariance": agreement.same_covariance,
    }


def main() -> None:
    """Match the runs' filters, print the table and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    add_option(parser)
    options = parser.parse_args()

    import zoo
    from zoo.plots import first_convolution

    finished = json.loads((options.runs / "seeds.json").read_text(encoding="utf-8"))
    kernels = [first_convolution(zoo.load(options.runs / f"seed-{seed}"))[1] for seed in finished["seeds"]]
    agreement = compare_filters(kernels)
    draw(kernels, agreement, finished["seeds"], options.output)
    height, width, channels, count = kernels[0].shape
    print(f"{count} filters of {height} x {width} x {channels}; cosine similarities of matched ones\n")
    table = [
        {"filters": name, "mean": float(f"{each.mean():.3g}"), "pairs": len(each)}
        for name, each in _named(agreement).items()
    ]
    report(table, options.record, finished["config"], finished["n"], tuple(finished["seeds"]))


if __name__ == "__main__":
    main()
