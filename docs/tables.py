"""The tables of README and docs, made from `docs/records/`, and of trained models from their index.

    python docs/tables.py            reports which pages differ from what the records give; exit code 1 where one does
    python docs/tables.py --write    brings them up to date

A table stands in a page between `<!-- table: NAME -->` and `<!-- end -->`, and NAME is below. Under it, or in
its last column, stand the machines and the days of its records.
"""

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from record import Record, deviation, read, shown, table  # noqa: E402  # a script beside the benchmarks, not a package

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKED = re.compile(r"(?<=<!-- table: )(\w+)( -->\n)(.*?)(?=<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Table:
    """The rows of a table, and the records whose machines and days are told under it."""

    rows: Callable[[], list[dict]]
    records: tuple[str, ...] = ()

    def text(self) -> str:
        """The table as a page has it."""
        places = dict.fromkeys(place(read(name)) for name in self.records)
        return table(self.rows()) + (f"\n\n*Measured on {'; '.join(places)}.*" if places else "")


def place(record: Record) -> str:
    """Where and when a record was measured."""
    return f"{record.hardware}, {record.date}"


def of(*names: str) -> Table:
    """The rows of these records, one after the other, with the columns that all of them have."""
    return Table(partial(rows_of, *names), names)


def rows_of(*names: str) -> list[dict]:
    """Those rows."""
    every = [row for name in names for row in read(name).rows]
    return [{key: row[key] for key in row if all(key in other for other in every)} for row in every]


def trained(*names: str) -> Table:
    """The rows of trainings' records, with the images tested on, the seeds, the time, the machine and the day."""
    return Table(lambda: [training(read(name)) for name in names])


def training(record: Record) -> dict:
    """A training's row: what every record holds is added to it."""
    (row,) = record.rows
    accuracy = row["test accuracy, %"]
    percent = ", ".join(f"{each:.2f}" for each in accuracy) if isinstance(accuracy, list) else shown(accuracy)
    return {
        "config": row["config"],
        "test accuracy, %": percent,
        "test images": record.n,
        "seeds": ", ".join(map(str, record.seeds)),
        "trained on": row["trained on"],
        "time": minutes(record.seconds),
        "on": place(record),
    }


def few_results() -> list[dict]:
    """A few trainings for the README."""
    names = ("nin_digits", "nin_mnist_bn_valid", "fast_cifar10", "nin_cifar10_valid")
    rows = [training(read(name)) for name in names]
    return [{key: row[key] for key in row if key != "trained on"} for row in rows]


FOUND = ("scenes_blood_cells", "scenes_blood_cells_crops", "scenes_blood_cells_padded")


def found() -> list[dict]:
    """What is found in the blood cells' test images, a row a way of training."""
    rows = []
    for name in FOUND:
        record = read(name)
        (row,) = record.rows
        scores = {key: row[key] for key in row if key.startswith("F1 of ")}
        rows.append({"config": row["config"], **scores, "time": minutes(record.seconds)})
    return rows


def minutes(seconds: float | None) -> str:
    """A duration in words."""
    if seconds is None:
        return "not kept"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def recipe() -> list[dict]:
    """What a modern recipe is worth: mean and deviation with all of its parts, and with none."""
    (every,), (none,) = read("resnet_digits").rows, read("resnet_digits_plain").rows
    values = {"every part at once": every, "none of them": none}
    key = "test accuracy, %"
    return [{"`resnet_digits` with": name, key: deviation(row[key], 4)} for name, row in values.items()]


SPEED = ("one_pass_vgg16", "one_pass_resnet50", "one_pass_nin_cifar10_bn", "one_pass_inception_cifar10")


def speed() -> list[dict]:
    """How many times as long all crops take as one pass, a row a model, a column an engine."""
    rows = {}
    for row in rows_of(*SPEED):
        own = {key: row[key] for key in ("model", "image", "cells", "limit")}
        known = rows.setdefault(row["model"], own)
        if "bfloat16" not in row["engine"]:
            known[row["engine"].removesuffix(" †")] = row["crops / one pass"].median
    return list(rows.values())


def pretrained() -> list[dict]:
    """The trained models of the package, by its index, which is their record."""
    from zoo.shipped import index

    return [
        {
            "name": f"`{name}`",
            "test accuracy, %": f"{100 * row.accuracy:.2f}",
            "test images": row.n,
            "F1 of objects": ", ".join(f"{key} {value:.3f}" for key, value in row.f1.items()),
            "parameters": row.params,
            "file, MB": f"{row.bytes / 1e6:.2f}",
            "trained by": f"`{row.command()}`",
            "on": f"{row.hardware}, {row.date}",
        }
        for name, row in index().models.items()
    ]


def pretrained_data() -> list[dict]:
    """The data that they were trained on."""
    from zoo.shipped import index

    used = {row.data for row in index().models.values()}
    sources = [(name, source) for name, source in index().data.items() if name in used]
    return [
        {"data": f"`{name}`", "what": source.title, "source": source.url, "licence": source.licence}
        for name, source in sources
    ]


TABLES = {
    "crops": of("crops_nin_mnist_valid", "crops_nin_mnist", "crops_nin_cifar10_wide", "crops_vgg16"),
    "twins": of("twins"),
    "agreement": of("agreement"),
    "speed": Table(speed, SPEED),
    "few_results": Table(few_results),
    "results": trained(
        "nin_digits",
        "resnet_digits",
        "resnet_digits_plain",
        "nin_digits_tuned",
        "nin_digits_untuned",
        "nin_mnist_bn",
        "nin_mnist_bn_valid",
        "nin_mnist",
        "fast_mnist",
        "nin_cifar10_wide",
        "fast_cifar10",
        "nin_cifar10_bn",
        "nin_cifar10_bn_120",
        "nin_cifar10_valid",
        "nin_cifar10_valid_32",
        "nin_cifar10_padded",
        "inception_cifar10",
        "fast_inception_cifar10",
        "resnet29_cifar10",
        "resnet29_cifar10_4_epochs",
    ),
    "canvas": of("canvas_nin_mnist"),
    "dense_training": of("dense_training"),
    "found": Table(found, FOUND),
    "class_weight": of("scenes_blood_cells_class_weight"),
    "found_nets": of("scenes_blood_cells_nets"),
    "photographs": of("photographs"),
    "recipe": Table(recipe, ("resnet_digits", "resnet_digits_plain")),
    "fast_parts": of("fast_cifar10_parts"),
    "fast_nets": of("fast_cifar10_nets"),
    "fast_record": of("airbench94", "fast_minutes"),
    "marking": of("marking"),
    "counting": of("counting"),
    "counting_peaks": of("counting_peaks"),
    "counting_losses": of("counting_losses"),
    "counting_rules": of("counting_rules"),
    "one_pass": of(
        "one_pass_vgg16",
        "one_pass_resnet50",
        "one_pass_resnet50_bfloat16",
        "one_pass_nin_cifar10_bn",
        "one_pass_resnet29_cifar10",
        "one_pass_inception_cifar10",
    ),
    "one_pass_errors": of("one_pass_errors"),
    "pretrained": Table(pretrained),
    "pretrained_data": Table(pretrained_data),
    "profile": of("profile_vgg16"),
    "tiles": of("tiles_resnet29"),
    "sliding": of("sliding"),
    "overlap": of("overlap"),
    "runtimes": of("runtimes_resnet50", "runtimes_inception_v3", "runtimes_nin_cifar10_bn", "runtimes_resnet50_1024"),
    "int8": of("int8"),
    "int8_speed": of("int8_speed"),
    "without_keras": of("without_keras"),
    "without_keras_30000": of("without_keras_30000"),
    "per_megapixel": of("per_megapixel"),
    "gigapixel": of("gigapixel"),
    "training_resnet29": of("training_resnet29_cifar10"),
    "training_nin": of("training_nin_cifar10_bn"),
    "training_more": of("training_more"),
    "onednn": of("onednn"),
    "channels": of("channels"),
    "bottlenecks_resnet": of("bottlenecks_resnet"),
    "bottlenecks_inception": of("bottlenecks_inception"),
    "depth": of("depth"),
    "freezing": of("freezing"),
    "exports": of("exports"),
    "installed_size": of("installed_size"),
    "versions": of("versions"),
}


def made(text: str) -> str:
    """A page's text with its tables as the records give them."""
    return MARKED.sub(lambda match: f"{match[1]}{match[2]}{TABLES[match[1]].text()}\n", text)


def main() -> None:
    """Report which pages are old, or bring them up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    old = [page for page in PAGES if made(text := page.read_text(encoding="utf-8")) != text]
    for page in old:
        print(f"{page.relative_to(ROOT)}: {'written' if options.write else 'differs from the records'}")
        if options.write:
            page.write_text(made(page.read_text(encoding="utf-8")), encoding="utf-8")
    raise SystemExit(bool(old) and not options.write)


if __name__ == "__main__":
    main()
