"""Records: one small JSON file for every run whose figures README or docs show.

    python benchmarks/record.py RUN... -o docs/records/NAME.json --command "zoo train NAME --seeds 0-2"

makes one of finished run directories, one a seed; every benchmark writes its own with `--record FILE`. The tables of
the pages are made from them: `python docs/tables.py --write`.
"""

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import psutil
from pydantic import BaseModel, ConfigDict, Field

ROOT = Path(__file__).resolve().parents[1]


class Spread(BaseModel):
    """The median of several rounds, the least and the largest."""

    model_config = ConfigDict(extra="forbid")
    median: float
    least: float
    largest: float


class Deviation(BaseModel):
    """The mean of several seeds and the sample's standard deviation."""

    model_config = ConfigDict(extra="forbid")
    mean: float
    deviation: float


class Record(BaseModel):
    """One run, in the order in which a reader asks.

    `config`: what was trained or measured, with its overrides. `commit`: that of the code; null where it is not known.
    `n`: test images of a training, rounds of a benchmark. `seconds`: of the whole command; null where nobody kept it.
    `note`: what else one must know; records made of older pages begin theirs with "before records". `rows`: what was
    measured, by the titles of the table's columns.
    """

    model_config = ConfigDict(extra="forbid")
    config: str
    command: str
    commit: Annotated[str, Field(pattern="^[0-9a-f]{7,40}$")] | None
    hardware: str
    versions: dict[str, str]
    seeds: list[int]
    n: Annotated[int, Field(gt=0)]
    date: datetime.date
    seconds: Annotated[float, Field(gt=0)] | None
    note: str
    rows: Annotated[list[dict[str, int | float | str | None | Spread | Deviation | list[float]]], Field(min_length=1)]


def read(name: str) -> Record:
    """The record of this name."""
    return Record.model_validate_json((ROOT / "docs" / "records" / f"{name}.json").read_bytes())


def write(record: Record, path: Path) -> None:
    """Write a record; a newer one replaces an older one."""
    path.write_text(json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def spread(values: list[float]) -> Spread:
    """The median of the values, the least and the largest, to three digits."""
    median, least, largest = (float(f"{f(values):.3g}") for f in (statistics.median, min, max))
    return Spread(median=median, least=least, largest=largest)


def deviation(values: list[float], digits: int = 3) -> Deviation | float:
    """The mean of the values and their sample's standard deviation to two digits, the mean to its decimals.

    One value itself, and the mean of equal ones, to so many digits.
    """
    mean, deviation = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
    if not deviation:
        mean = float(f"{mean:.{digits}g}")
        return mean if len(values) == 1 else Deviation(mean=mean, deviation=0.0)
    decimals = 1 - math.floor(math.log10(deviation))
    return Deviation(mean=round(mean, decimals), deviation=round(deviation, decimals))


def shown(value: object) -> str:
    """A value as a table shows it; a fraction with four digits at most."""
    match value:
        case None:
            return ""
        case Spread():
            median, least, largest = alike(value.median, value.least, value.largest)
            return f"{median} ({least} to {largest})"
        case Deviation():
            return " ± ".join(alike(value.mean, value.deviation))
        case list():
            return ", ".join(map(shown, value))
        case float():
            short = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
            return short.replace("e-0", "e-")
        case int():
            return f"{value:,}"
    return str(value)


def alike(*values: float) -> list[str]:
    """Numbers with as many decimals as the one of them that has most."""
    decimals = max(len(shown(value).partition(".")[2]) for value in values)
    return [f"{value:,.{decimals}f}" for value in values]


def table(rows: list[dict]) -> str:
    """Rows, which have the same keys, as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([shown(row[key]) for key in rows[0]] for row in rows)]
    return "\n".join(f"|{'|'.join(line)}|" if line[0] == "---" else f"| {' | '.join(line)} |" for line in lines)


def add_option(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark its `--record`."""
    parser.add_argument("--record", type=Path, help="write a record of the run to this file")


def report(rows: list[dict], record: Path | None, config: str, n: int, seeds: tuple[int, ...] = (0,)) -> None:
    """Print a benchmark's table and write its record, where a file for it is given."""
    print(table(rows), flush=True)
    if record:
        command = f"python benchmarks/{Path(sys.argv[0]).name} {shlex.join(_measured(sys.argv[1:]))}".rstrip()
        machine = {"hardware": hardware(), "versions": versions(), "commit": commit(), "date": datetime.date.today()}
        more = {"config": config, "command": command, "seeds": list(seeds), "n": n, "seconds": _age(), "note": ""}
        write(Record(rows=rows, **machine, **more), record)


def _measured(words: list[str]) -> list[str]:
    """A command's words without those that do not change what is measured."""
    where = words.index("--record") if "--record" in words else len(words)
    return [word for word in words[:where] + words[where + 2 :] if word != "--case"]


# Instructions that make lower precisions quick, by what Linux calls them.
_INSTRUCTIONS = {
    "avx512_bf16": "AVX-512 bfloat16",
    "amx_bf16": "AMX bfloat16",
    "avx_vnni": "AVX VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "amx_int8": "AMX int8",
}


def hardware() -> str:
    """The processor's cores, its model, and what it has for lower precisions, where Linux says so."""
    from zoo.processor import model

    cores = f"{len(os.sched_getaffinity(0))} cores of {model()}"
    return " with ".join(filter(None, (cores, ", ".join(instructions(Path("/proc/cpuinfo"))))))


def instructions(file: Path) -> list[str]:
    """What a processor that Linux describes in `file` has for bfloat16 and int8."""
    from zoo.processor import flags

    there = flags(file)
    return [name for flag, name in _INSTRUCTIONS.items() if flag in there]


def versions() -> dict[str, str]:
    """The packages that compute."""
    names = ("keras", "tensorflow", "jax", "openvino", "onnxruntime", "ai-edge-litert", "torch", "monai", "numpy")
    there = {each.name.lower(): each.version for each in importlib.metadata.distributions() if each.name}
    return {name: there[name] for name in names if name in there}


def commit() -> str | None:
    """The commit of the checkout; None where files differ from it, or there is none."""
    git = ["git", "-C", str(ROOT)]
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    if changed.returncode or changed.stdout:
        return None
    return subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()


def _age() -> float:
    """How long this process has run, in seconds."""
    return round(time.time() - psutil.Process().create_time(), 1)


def of_runs(folders: list[Path], command: str) -> Record:
    """The record of finished run directories of one config, one a seed; `seconds` are those of all of them together.

    Of the command's words, the overrides of `model` and `train` are part of what was trained.
    """
    from zoo.environment import machine

    reports = [json.loads((folder / "evaluation.json").read_text()) for folder in folders]
    environment = json.loads((folders[0] / "environment.json").read_text())
    times = [_times(folder) for folder in folders]
    (name,) = {report["config"] for report in reports}
    overrides = [word for word in shlex.split(command) if word.startswith(("model.", "train."))]
    config = shlex.join([name, *overrides])
    dense = [report["dense"] for report in reports if "dense" in report]
    if "accuracy" in reports[0]:
        accuracies = [round(100 * report["accuracy"], 4) for report in reports]
        trained_on = _trained_on(reports[0]["protocol"])
        reached = {"test accuracy, %": accuracies, "trained on": trained_on, **_objects(dense)}
    else:
        reached = {"images": reports[0]["protocol"], **_counts(dense)}
    return Record(
        config=config,
        command=command,
        commit=commit(),
        hardware=machine(environment),
        versions=environment["versions"],
        seeds=[report["seed"] for report in reports],
        n=reports[0]["n"],
        date=max(ended for _, ended in times).date(),
        seconds=round(sum((ended - began).total_seconds() for began, ended in times), 1) or None,
        note="",
        rows=[{"config": f"`{config}`", **reached}],
    )


def _times(folder: Path) -> tuple[datetime.datetime, datetime.datetime]:
    """When a run began and ended, as its `environment.json` says; of an older version by its first and last file."""
    path = folder / "environment.json"
    environment = json.loads(path.read_text())
    if "ended" in environment:
        return tuple(datetime.datetime.fromisoformat(environment[key]) for key in ("began", "ended"))
    files = (path, folder / "evaluation.json")
    return tuple(datetime.datetime.fromtimestamp(each.stat().st_mtime, datetime.UTC) for each in files)


def _trained_on(protocol: str) -> str:
    """How many images a training had and how many were held out, in few words; another protocol as it is."""
    found = re.match(r"([\d,]+) training images, (none|[\d,]+)( more)?\b.* held out", protocol)
    return f"{found[1]}, {found[2]} held out" if found else protocol


def _objects(evaluations: list[dict]) -> dict[str, list[float]]:
    """The F1 of each class's objects in whole images, a number a seed; nothing of runs that find none."""
    names = evaluations[0]["classes"] if evaluations else ()
    return {f"F1 of {name}": [round(each["classes"][name]["f1"] or 0, 3) for each in evaluations] for name in names}


def _counts(evaluations: list[dict]) -> dict[str, list[float]]:
    """The mean absolute error of each class's counts in whole images, a number a seed."""
    key = "mean_absolute_error"
    names = evaluations[0]["counts"]
    return {f"error of {name}": [round(each["counts"][name][key], 3) for each in evaluations] for name in names}


def main() -> None:
    """Write the record of finished run directories."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--command", required=True, help="the command that trained them")
    options = parser.parse_args()
    record = of_runs(options.runs, options.command)
    write(record, options.output)
    print(table(record.rows))


if __name__ == "__main__":
    main()
