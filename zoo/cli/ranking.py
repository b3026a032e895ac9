"""Which of many scanned images a model is least certain of, which are those worth correcting next."""

import csv
import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.object_tables import asked_of, folders_of
from zoo.errors import printable
from zoo.files import Output, replacing_all, writing
from zoo.made_by import MadeBy, json_text, key_of
from zoo.progress import aligned, say

if TYPE_CHECKING:
    from zoo.scanning.scan import Scanner

RECORD, TABLE = "uncertainty.json", "uncertainty.csv"
# Images that are printed.
_SHOWN = 10


class Ranking:
    """uncertainty.csv of all images that a folder has the results of, the least certain first.

    These are the ones that the same model has scanned by the same options, in one command or in several. Its record is
    uncertainty.json, which names who made it.
    """

    def __init__(self, scanner: "Scanner", folder: Path, inputs: Sequence[Path], overwrite: bool):
        """Check, before any work, that it can be written.

        Raises:
            InputError: where files of these names are there, and are not this command's.
        """
        self._folder, self._inputs, self._overwrite = folder, inputs, overwrite
        self._made_by = MadeBy("zoo scan", {**scanner.for_all_images, **asked_of(scanner)})
        with self._writing():
            pass

    def _writing(self) -> Any:
        record = self._folder / RECORD
        outputs = [Output(record), Output(self._folder / TABLE, owner=record)]
        return writing(outputs, self._made_by, self._inputs, self._overwrite)

    def write(self, failed: Collection[Path]) -> None:
        """Write it, without the folders of images that `failed` now, and tell the user about those at its top.

        Nothing is done where no image has an uncertainty, as with a model of counts.
        """
        folders = [each for each in folders_of(self._folder, "geometry.json", self._made_by) if each not in failed]
        records = (json.loads((each / "geometry.json").read_text(encoding="utf-8")) for each in folders)
        known = [(each["image"], each["uncertainty"]) for each in records if each.get("uncertainty") is not None]
        rows = sorted(known, key=lambda each: (-each[1], each[0]))
        if not rows:
            return
        with self._writing(), replacing_all(self._folder / RECORD) as working:
            with (working / TABLE).open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                lines = [("image", "uncertainty"), *((image, f"{value:.6f}") for image, value in rows)]
                csv.writer(file, lineterminator="\n").writerows(lines)
            made_by = replace(self._made_by, beside={TABLE: key_of(working / TABLE)})
            content = {"images": len(rows), "made_by": made_by.to_dict()}
            (working / RECORD).write_text(json_text(content), encoding="utf-8")
        more = f", and {len(rows) - _SHOWN} more in {TABLE}" if len(rows) > _SHOWN else ""
        say(f"least certain of their answers, 0 to 1{more}:")
        shown = [(printable(image), f"{value:.3f}") for image, value in rows[:_SHOWN]]
        say(aligned([("image", "uncertainty"), *shown]))
