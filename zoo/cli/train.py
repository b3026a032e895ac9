"""`zoo train`: an experiment, from its config to a run directory."""

import re
from pathlib import Path

from zoo.cli import options as common
from zoo.cli.command import give, option
from zoo.cli.options import FILE
from zoo.cli.start import config_of, quiet_start, zoo
from zoo.errors import InputError, quoted, refuse


@zoo.command(
    short_help="Train, evaluate, convert, scan a canvas, draw.",
    epilog="Example: zoo train nin_mnist_bn train.epochs=2 --workdir runs/quick",
)
@common.CONFIG
@option("--workdir", type=FILE, help="The run directory. Default: runs/<config name>-<digest of the config>.")
@option("--fresh", is_flag=True, help="Train anew in a numbered directory, where the run exists already.")
@option("--seeds", metavar="SEEDS", help="Train once for each of 0-4, or of 0,2,5, in one directory a seed.")
def train(arguments: tuple[str, ...], workdir: Path | None, fresh: bool, seeds: str | None) -> None:
    """Train CONFIG, evaluate it, convert its head, scan a canvas, draw pictures.

    The same command goes on where an unfinished run stopped. Options, CONFIG and overrides stand in any order.

    With --seeds, the run directory holds one for each seed, and seeds.json: mean and standard deviation.
    """
    from zoo.config import load_config

    config, overrides = config_of(arguments)
    resolved = load_config(config, overrides)
    if seeds is None:
        with quiet_start():
            from zoo.experiment import run
        result = run(resolved, workdir, fresh)
        # None in all processes of several but the first one.
        give({} if result is None else {"run": str(result.folder), **result.evaluation})
        return
    if any(each.startswith("seed=") for each in overrides):
        raise InputError("seed: is given twice, by --seeds and as an override")
    chosen = _parse_seeds(seeds)
    with quiet_start():
        from zoo.seeds import folder_of, run_seeds
    folder = folder_of(resolved, workdir, fresh)
    give({"runs": str(folder), **run_seeds(resolved, chosen, folder)})


def _parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds from `0-4` or `0,2,5`, in order, each once."""
    seeds: set[int] = set()
    for part in text.split(","):
        bounds = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        first, last = (int(bounds[1]), int(bounds[2] or bounds[1])) if bounds else (1, 0)
        if not 0 <= last - first < 1000:
            refuse("--seeds", quoted(text), "such as 0-4, 0,2,5 or 0-2,7")
        seeds |= set(range(first, last + 1))
    return tuple(sorted(seeds))
