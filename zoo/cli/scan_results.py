"""What `zoo scan` leaves in the folder of an image, and what it finds there."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.object_tables import asked_of, say_counts, say_objects, tables_of
from zoo.cli.start import say_notes
from zoo.errors import refuse
from zoo.files import Output, remove, write_json, writing
from zoo.made_by import MadeBy, maker_of
from zoo.progress import note, say

if TYPE_CHECKING:
    from zoo.scanning.merging import Merge
    from zoo.scanning.options import Options
    from zoo.scanning.scan import Scanner
    from zoo.scanning.score_map import ScoreMap
    from zoo.scanning.summary import Summary

# The most bytes of scores that go into one compressed file of the whole map.
_SMALL = 64 * 2**20


@dataclass(frozen=True)
class ImageScans:
    """What scans images into folders: one command's options, for all of its images.

    `mask`: the image's own, or a folder of masks. `format`, `class_name` and `answer` are those of the command.
    `others`: what it reads besides the image and its mask. `checked`: how many cells of each image, by its absolute
    path, are compared with their crops.
    """

    options: "Options"
    mask: Path | None = None
    format: str | None = None
    class_name: str | None = None
    answer: "Merge | None" = None
    others: Sequence[Path] = field(default=())
    overwrite: bool = False
    checked: Mapping[Path, int] = field(default_factory=dict)

    def prepare(self, scanner: "Scanner") -> Callable[[Path, Path], None]:
        """What scans one image of many into its folder, unless its results are there."""

        def scan_image(image: Path, folder: Path) -> None:
            mask = None if self.mask is None else mask_of(image, self.mask)
            if _is_there(folder, lambda: {**scanner.made_from(image, mask), **self._asked(scanner)}):
                note(f"{image}: is there already, {folder}")
                return
            say(f"{image}:")
            self.scan_image(scanner, image, mask, folder)

        return scan_image

    def prepare_file(self, model: Path) -> Callable[[Path, Path], None]:
        """`prepare` for the model in a file, or a run directory, in a process of its own."""
        from zoo.large_images import scanner_at
        from zoo.scanning.memory import check_pictures

        scanner = scanner_at(model, self.options, progress=True)
        check_pictures(self.options.budget)
        return self.prepare(scanner)

    def scan_image(self, scanner: "Scanner", image: Path, mask: Path | None, folder: Path) -> None:
        """Scan one image into its folder; geometry.json comes last and says that the rest is whole."""
        from zoo.scanning import count_files, object_files
        from zoo.scanning.crop_check import OF_SCALES, needs_check
        from zoo.scanning.pixels import open_pixels
        from zoo.scanning.store import Store
        from zoo.scanning.summary import Summary
        from zoo.scanning.viewer import Page

        streamed = folder / f"scores.{'zarr' if self.format == 'zarr' else 'npy'}"
        with open_pixels(scanner.network, image, scanner.options.choice) as pixels:
            made_from = scanner.made_from(pixels, mask)
            made_by = MadeBy("zoo scan", {**made_from, **self._asked(scanner)})
            overwrite = self.overwrite or _is_version_1(folder, made_by.inputs)
            outputs = [Output(streamed, folder=streamed.suffix == ".zarr", maker=MadeBy("zoo scan", made_from))]
            outputs += [Output(folder / name) for name in self._names]
            tables = tables_of(scanner)
            outputs += [] if tables is None else tables.outputs(folder)
            read = [image, *([] if mask is None else [mask]), *self.others]
            with writing(outputs, made_by, read, overwrite):
                begin = time.monotonic()
                scores = scanner(pixels, mask, streamed, overwrite, settle=False)
                # After the scores: it takes as long to import as the rest of a scan without Keras.
                from zoo import density_plots, plots

                count = self.checked.get(image.absolute(), 0)
                check = scanner.check_crops(scores, pixels, count, time.monotonic() - begin)
                crops = None if check is None else check.to_dict()
                scores = replace(scores, made_from=dict(made_by.inputs), crops=crops)
                shown = None if self.class_name is None else scores.class_names.index(self.class_name)
                page = Page.of(scores, pixels)
                summary = Summary(scores, pixels, shown, self.answer, page)
                plots.overlay(summary, folder / "overlay.png")
                page.write(scores, folder / "viewer.html", summary.found, image.name)
                objects = counts = None
                if summary.found is not None:
                    objects = object_files.ImageObjects.of(image.name, summary)
                    object_files.write(folder, objects, scores.class_names, made_by)
                if summary.density is not None:
                    density_plots.density(summary, folder / count_files.DENSITY)
                    counts = count_files.ImageCounts.of(image.name, scores, summary.density)
                    count_files.write(folder, counts, made_by)
                answer = self._write_answer(summary, folder / "answer.json")
                further: dict[str, Any] = {"image": image.name, "uncertainty": summary.uncertainty}
                if summary.density is None:
                    further["cells_won"] = dict(zip(scores.class_names, summary.wins.tolist(), strict=True))
                scores = replace(scores, further=further)
                kept = _keep(scores, streamed, self.format)
                _remove_others(folder, {kept, *(each.path for each in outputs[1:])})
                Store(streamed).settle()
        say_notes(image, scores.notes)
        _say_cells(summary, masked=mask is not None)
        if objects is not None:
            say_objects(objects)
            _say_outer(summary.score_map)
        elif counts is not None:
            say_counts(counts)
        else:
            _say_wins(summary)
        if check is not None and len(self.checked) == 1:
            say(check.sentence())
        if count and scores.scales and needs_check(scores.geometry):
            note(OF_SCALES)
        if answer:
            say(answer)
        own = [] if tables is None else tables.of_image
        *first, last = (folder / name for name in (kept.name, "geometry.json", *own, "overlay.png", "viewer.html"))
        say(f"wrote {', '.join(map(str, first))} and {last}")

    def _asked(self, scanner: "Scanner") -> dict[str, Any]:
        """What is asked of the files, beside what the scores depend on."""
        asked = {"format": self.format, "class": self.class_name, "answer": self.answer}
        return {**asked, **asked_of(scanner)}

    @property
    def _names(self) -> list[str]:
        """The files of a scan's folder, beside the scores that are streamed to it."""
        names = ["overlay.png", "viewer.html", "geometry.json", "scanned.npy"]
        names += ["scores.npz"] if self.format in (None, "npz") else []
        return [*names, "answer.json"] if self.answer else names

    def _write_answer(self, summary: "Summary", file: Path) -> str:
        """Write the answer for the whole image, and return it as a line; nothing where none was asked for."""
        if summary.answer is None:
            return ""
        probabilities, names = summary.answer.tolist(), summary.score_map.class_names
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        content = {"answer": self.answer, "class": names[best], "probability": probabilities[best]}
        content["probabilities"] = dict(zip(names, probabilities, strict=True))
        write_json(file, content, summary.score_map.made_by)
        return f"answer, {self.answer}: {names[best]} {probabilities[best]:.1%}"


def results_of(image: Path, folder: Path) -> dict[str, Any]:
    """What the folder of an image says of its scan, for `--json`: grid, answers, counts of objects, and the files."""
    from zoo.scanning.count_files import COUNTS
    from zoo.scanning.object_files import OBJECTS

    record = _record(folder)
    files = ["geometry.json", record.get("scores"), record.get("scanned"), "overlay.png", "viewer.html", "answer.json"]
    left_out = ("image", "scores", "scanned", "made_from", "made_by")
    result: dict[str, Any] = {"image": str(image), "folder": str(folder)}
    result |= {name: value for name, value in record.items() if name not in left_out}
    for tables in (OBJECTS, COUNTS):
        if (folder / tables.record).is_file():
            result["counts"] = json.loads((folder / tables.record).read_text(encoding="utf-8"))["counts"]
            files += tables.of_image
    if (folder / "answer.json").is_file():
        answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
        result["answer"] = {name: value for name, value in answer.items() if name != "made_by"}
    return {**result, "files": [str(folder / name) for name in files if name and (folder / name).exists()]}


def _say_cells(summary: "Summary", masked: bool) -> None:
    """Tell the user about the grid."""
    scores, missing = summary.score_map, summary.score_map.not_scanned
    rows, columns = scores.scores.shape[:2]
    say(f"{rows} x {columns} cells, {scores.sentence()}")
    if scores.other_function:
        note(f"note: {scores.other_function}")
    if any(scores.uncovered) and not masked:
        top, left, bottom, right = scores.uncovered
        say(f"pixels that no window covers: {top} top, {left} left, {bottom} bottom, {right} right")
    if missing:
        causes = ["outside the mask"] if masked else []
        causes += ["no window of any scale in the image"] if scores.scales else []
        say(f"cells not scanned: {missing} of {rows * columns} ({' or '.join(causes)})")


def _say_wins(summary: "Summary") -> None:
    """Tell the user which classes the cells have."""
    wins = zip(summary.wins, summary.score_map.class_names, strict=True)
    shares = sorted(((count / max(summary.cells, 1), name) for count, name in wins), reverse=True)
    say("cells won: " + ", ".join(f"{name} {share:.1%}" for share, name in shares[:10] if share))


def _say_outer(scores: "ScoreMap") -> None:
    """Tell the user where no object can be found for want of a window."""
    outer = max(
        far
        for middles, side in zip(scores.centres, scores.image_size, strict=True)
        for far in (middles[0], side - middles[-1])
    )
    if scores.border != "full" and outer > max(scores.stride):
        note(f"no window has its middle in the outer {outer:g} pixels, where no object is found: --border full")


def say_crops(folders: Iterable[Path]) -> None:
    """Tell the user how many cells of several images answer as their crops do, of all images together."""
    from zoo.scanning.crop_check import CropCheck

    checks = [CropCheck.of(_record(folder).get("crops")) for folder in folders]
    known = [check for check in checks if check is not None]
    if known:
        say(sum(known, CropCheck()).sentence())


def mask_of(image: Path, masks: Path) -> Path:
    """The picture in a folder of masks that has the image's name, or that alone has its stem.

    Raises:
        InputError: where there is none, or several.
    """
    from zoo.pictures import list_pictures

    pictures = list_pictures(masks).pictures
    own = [each for each in pictures if each.name == image.name] or [
        each for each in pictures if each.stem == image.stem
    ]
    if len(own) != 1:
        number = f"{len(own)} masks" if own else "no mask"
        refuse("mask", f"{str(masks)!r}, which has {number} named {image.stem}.*", "one mask for every image")
    return own[0]


def _keep(scores: "ScoreMap", streamed: Path, format_: str | None) -> Path:
    """Write geometry.json, and the scores in the file that was asked for, which is returned."""
    import numpy as np

    if format_ == "npz" or format_ is None and scores.scores.nbytes <= _SMALL:
        replace(scores, scores=np.array(scores.scores)).save(streamed.parent)
        streamed.unlink()
        return streamed.with_suffix(".npz")
    scores.save_geometry(streamed.parent, streamed.name)
    return streamed


def _remove_others(folder: Path, own: set[Path]) -> None:
    """Remove what another scan left in a folder that this one was given leave to overwrite."""
    from zoo.scanning.count_files import COUNTS
    from zoo.scanning.object_files import OBJECTS

    for name in ("scores.npz", "scores.npy", "scores.zarr", "scanned.npy", "answer.json"):
        if (folder / name) not in own and (maker := maker_of(folder / name)) and maker.command == "zoo scan":
            remove(folder / name)
    for tables in (OBJECTS, COUNTS):
        tables.discard(folder, own)


def _is_there(folder: Path, made_from: Callable[[], dict]) -> bool:
    """Whether the folder holds the results of this scan."""
    from zoo.scanning.keys import difference

    record = _record(folder)
    there = record.get("made_from")
    return isinstance(there, dict) and difference(there, made_from()) is None and _is_complete(folder, record)


def _is_complete(folder: Path, record: dict[str, Any]) -> bool:
    """Whether all files are there that a scan's record tells of; in a folder of version 1, the scores."""
    from zoo.scanning.count_files import COUNTS
    from zoo.scanning.object_files import OBJECTS

    kinds = {"objects": OBJECTS, "target": COUNTS}
    own = [name for key, tables in kinds.items() if key in record.get("made_from", {}) for name in tables.of_image]
    named = [
        record.get("scores"),
        record.get("scanned"),
        *own,
        *(["overlay.png", "viewer.html"] if "made_by" in record else []),
    ]
    return all((folder / name).exists() for name in named if name)


def _is_version_1(folder: Path, made_from: Mapping[str, Any]) -> bool:
    """Whether the folder holds the results of this scan by version 1, whose files do not say what made them."""
    return "made_by" not in _record(folder) and _is_there(folder, lambda: dict(made_from))


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / "geometry.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
