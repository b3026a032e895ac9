"""The tables of scanned images, and the JSON record beside them, which answers for them."""

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from zoo.files import Output, remove, replacing_all
from zoo.made_by import MadeBy, key_of, maker_of

# The columns of each table.
COLUMNS = {"objects.csv": ("image", "class", "score", "x", "y"), "counts.csv": ("image", "class", "count")}


class Tabled(Protocol):
    """What the files say of one image."""

    @property
    def image(self) -> str:
        """Its file's name."""

    @property
    def counts(self) -> Mapping[str, float]:
        """By class, how many objects there are."""

    def rows(self, table: str) -> Iterable[Iterable[Any]]:
        """Its rows of a table, without the first column, which names it."""

    def among_others(self) -> dict[str, Any]:
        """What the record of several images says of it."""


@dataclass(frozen=True)
class Tables:
    """The files of one kind of result, in the folder of an image, and in the folder of several.

    `record`: the JSON file that names who made the tables, which have no room for that. `names`: the tables. `others`:
    further files in the folder of an image, which say themselves who made them.
    """

    record: str
    names: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def of_image(self) -> tuple[str, ...]:
        """All files in the folder of an image, in the order in which they are named to the user."""
        return (*self.names, *self.others, self.record)

    def outputs(self, folder: Path, of_many: bool = False) -> list[Output]:
        """The files in the folder of an image, or those `of_many` in the folder of all of them."""
        record = folder / self.record
        others = [] if of_many else [Output(folder / name) for name in self.others]
        return [Output(record), *others, *(Output(folder / name, owner=record) for name in self.names)]

    def discard(self, folder: Path, kept: Collection[Path]) -> None:
        """Remove those that a scan left in a folder, but for those that are `kept`."""
        maker = maker_of(folder / self.record)
        if folder / self.record in kept or maker is None or maker.command != "zoo scan":
            return
        tables = (folder / name for name in self.names)
        own = [each for each in tables if each.is_file() and maker.beside.get(each.name) == key_of(each)]
        for path in (*own, *(folder / name for name in (*self.others, self.record))):
            if path not in kept:
                remove(path)

    def write_all(self, folder: Path, images: Iterable[Tabled], made_by: MadeBy) -> dict[str, float]:
        """Write the tables of several images, and the record: the counts of all together and of each.

        The images are taken one after the other. Returns how many objects of each class all have together.
        """
        each_one: list[dict[str, Any]] = []
        total: dict[str, float] = {}

        def noted() -> Iterator[Tabled]:
            for image in images:
                each_one.append({"image": image.image, **image.among_others()})
                total.update({name: total.get(name, 0) + count for name, count in image.counts.items()})
                yield image

        with replacing_all(folder / self.record) as working:
            self.write_tables(working, noted())
            self.write_record(working, {"counts": total, "images": each_one}, "images", made_by)
        return total

    def write_tables(self, folder: Path, images: Iterable[Tabled]) -> None:
        """Write the tables; a file's name that is no text is written as it is."""
        with ExitStack() as opened:
            writers = {
                name: csv.writer(
                    opened.enter_context(
                        (folder / name).open("w", encoding="utf-8", errors="surrogateescape", newline="")
                    ),
                    lineterminator="\n",
                )
                for name in self.names
            }
            for name, writer in writers.items():
                writer.writerow(COLUMNS[name])
            for image in images:
                for name, writer in writers.items():
                    writer.writerows([image.image, *row] for row in image.rows(name))

    def write_record(self, folder: Path, record: dict[str, Any], key: str, made_by: MadeBy) -> None:
        """Write the record with its list `key` last; it answers for the tables (see `zoo.files.Output`)."""
        made_by = replace(made_by, beside={name: key_of(folder / name) for name in self.names})
        head = {name: value for name, value in record.items() if name != key}
        write_listed(folder / self.record, {**head, "made_by": made_by.to_dict()}, key, record[key])


def read_record(path: Path) -> dict[str, Any]:
    """What the record of an image says of it."""
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["made_by"]
    return content


def write_listed(path: Path, head: dict[str, Any], key: str, items: Iterable[Any]) -> None:
    """Write a JSON object with a long list at its end, of which each item has a line."""
    first = json.dumps(head, indent=2, allow_nan=False).removesuffix("\n}")
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{first},\n  "{key}": [')
        for index, item in enumerate(items):
            file.write(f"{',' if index else ''}\n{json.dumps(item, allow_nan=False)}")
        file.write("\n]\n}\n")
