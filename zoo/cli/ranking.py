"""Which of many scanned images a model is least certain of, which are those worth correcting next."""

import csv
import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from zoo.cli.folder_files import FolderFiles
from zoo.errors import printable
from zoo.files import Output, replacing_all
from zoo.made_by import MadeBy, json_text, key_of
from zoo.progress import aligned, say

RECORD, TABLE = "uncertainty.json", "uncertainty.csv"
# Images that are printed.
_SHOWN = 10


class Ranking(FolderFiles):
    """uncertainty.csv of all images that a folder has the results of, the least certain first.

    Its record is uncertainty.json, which names who made it.
    """

    def __init__(self, folder: Path, made_by: MadeBy, inputs: Sequence[Path], overwrite: bool):
        """Check, before any work, that it can be written."""
        record = folder / RECORD
        super().__init__(folder, [Output(record), Output(folder / TABLE, owner=record)], made_by, inputs, overwrite)

    def write(self, failed: Collection[Path]) -> None:
        """Write it, without the folders of images that `failed` now, and tell the user about those at its top.

        Nothing is done where no image has an uncertainty, as with a model of counts.
        """
        folders = self.scanned("geometry.json", failed)
        records = (json.loads((each / "geometry.json").read_text(encoding="utf-8")) for each in folders)
        known = [(each["image"], each["uncertainty"]) for each in records if each.get("uncertainty") is not None]
        rows = sorted(known, key=lambda each: (-each[1], each[0]))
        if not rows:
            return
        with self.writing(), replacing_all(self.folder / RECORD) as working:
            with (working / TABLE).open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                lines = [("image", "uncertainty"), *((image, f"{value:.6f}") for image, value in rows)]
                csv.writer(file, lineterminator="\n").writerows(lines)
            made_by = replace(self.made_by, beside={TABLE: key_of(working / TABLE)})
            content = {"images": len(rows), "made_by": made_by.to_dict()}
            (working / RECORD).write_text(json_text(content), encoding="utf-8")
        more = f", and {len(rows) - _SHOWN} more in {TABLE}" if len(rows) > _SHOWN else ""
        say(f"least certain of their answers, 0 to 1{more}:")
        shown = [(printable(image), f"{value:.3f}") for image, value in rows[:_SHOWN]]
        say(aligned([("image", "uncertainty"), *shown]))
