"""`zoo scan`: a model slid over large images."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.start import FILE, OVERWRITE, quiet_start, say_notes, which_picture, zoo
from zoo.errors import InputError
from zoo.files import Output, check_output, remove, write_json, writing
from zoo.made_by import MadeBy, maker_of

if TYPE_CHECKING:
    from zoo.pictures import Choice
    from zoo.scanning.scan import Scanner
    from zoo.scanning.score_map import ScoreMap
from zoo.progress import say

# The most bytes of scores that go into one compressed file of the whole map.
_SMALL = 64 * 2**20


@zoo.command(
    short_help="Slide a model over large images.",
    epilog="Example: zoo scan fcn.keras runs/quick/scene_input.png -o scanned",
)
@click.argument("model", type=FILE)
@click.argument("images", type=FILE, metavar="IMAGE...", nargs=-1, required=True)
@click.option("-o", "--output", type=FILE, required=True, help="The folder for scores, geometry, overlay and viewer.")
@click.option("--tile", type=int, help="Side in pixels of the region that one pass answers for.")
@click.option("--memory", help="What the process may hold, such as 2GiB: the tile is chosen to fit.")
@click.option("--stride", type=int, help="Pixels between cells: any divisor of the model's stride, 1 for every pixel.")
@click.option("--scales", help="Scan at each of these scales, such as 0.7,1,1.4, and merge the maps.")
@click.option(
    "--merge",
    default="average-probabilities",
    show_default=True,
    help="How scales are merged: average- or maximum-, of logits or probabilities.",
)
@click.option(
    "--border", default="none", show_default=True, help="Pixels that no window covers: none, reflect or shift."
)
@click.option("--mask", type=FILE, help="Scan where this image is not 0; for several images, a folder of masks.")
@click.option("--answer", "how", help="One answer for the whole image, pooled from its cells; named as for --merge.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["npz", "npy", "zarr"]),
    help="The scores' file; default: npz up to 64 MiB of scores, npy beyond.",
)
@click.option("--engine", default="keras", show_default=True, help="What computes: keras or openvino.")
@click.option("--precision", help="What openvino computes in: float32 or bfloat16.")
@which_picture
@click.option("--class", "class_name", help="Draw this class's probability instead of the winner.")
@click.option("--workers", type=int, help="Share several images out among this many processes.")
@click.option("--gpus", is_flag=True, help="With --workers: a GPU for each.")
@OVERWRITE
def scan(
    model: Path,
    images: tuple[Path, ...],
    output: Path,
    tile: int | None,
    memory: str | None,
    stride: int | None,
    scales: str | None,
    merge: str,
    border: str,
    mask: Path | None,
    how: str | None,
    format_: str | None,
    engine: str,
    precision: str | None,
    class_name: str | None,
    workers: int | None,
    gpus: bool,
    overwrite: bool,
    choice: "Choice",
) -> None:
    """Slide a model over large images: scores, geometry.json, overlay.png and viewer.html in the output folder.

    IMAGE is a file, or a folder of images. Several images have a folder each in the output folder, by their names; one
    that cannot be scanned is told at the end, and one that is there already is left as it is. A scan that was stopped
    goes on where it was. A classifier is converted first. With --workers, Ray runs that many processes here, or on the
    cluster that RAY_ADDRESS names, and --memory is what each may hold.
    """
    with quiet_start():
        from zoo import model_files
        from zoo.classes import normal
        from zoo.errors import unknown
        from zoo.network.network import Network
        from zoo.scanning.answers import check_pooling
        from zoo.scanning.scales import check_scales
        from zoo.scanning.scan import Scanner
    check_output(output, folder=True)
    for each in filter(None, (merge, how)):
        check_pooling(each)
    sizes = None if scales is None else check_scales(scales.split(","))
    network = model_files.load(model)
    names = Network.of(network).class_names
    class_name = None if class_name is None else normal(class_name)
    if class_name is not None and class_name not in names:
        raise InputError(unknown("class", class_name, names))
    if gpus and workers is None:
        raise InputError("--gpus: received without --workers; accepted: both")
    options = {"tile": tile, "memory": memory, "stride": stride, "scales": sizes, "merge": merge, "border": border}
    options |= {"engine": engine, "precision": precision, "choice": choice}
    written = {"format": format_, "class": class_name, "answer": how}
    if len(images) == 1 and not _is_folder(images[0]):
        if workers is not None:
            raise InputError(f"--workers: received {workers} for one image; accepted: several images, or a folder")
        if mask is not None and _is_folder(mask):
            mask = _mask_of(images[0], mask)
        scanner = Scanner(network, **options, progress=True)
        _scan_one(scanner, images[0], mask, output, written, model_files.files_of(model), overwrite)
        return
    if mask is not None and not _is_folder(mask):
        raise InputError(f"mask: received the file {str(mask)!r} for several images; accepted: a folder of masks")
    jobs = _folders(images, output)
    prepare = partial(
        _prepared,
        mask=None if mask is None else mask.absolute(),
        options=options,
        written=written,
        others=[each.absolute() for each in (*model_files.files_of(model), *(image for image, _ in jobs))],
        overwrite=overwrite,
    )
    failed = []
    if workers is not None:
        from zoo.scanning.fleet import scan_many

        for scanned in scan_many(model, jobs, prepare, workers, gpus, progress=True):
            click.echo(scanned.text, nl=False)
            if scanned.error:
                failed.append((scanned.image, scanned.error))
    else:
        job = prepare(network)
        for image, folder in jobs:
            try:
                job(image, folder)
            except InputError as error:
                failed.append((image, error))
    for image, error in failed:
        click.echo(str(error) if str(image) in str(error) else f"{image}: {error}", err=True)
    if failed:
        raise InputError(f"{len(failed)} of {len(jobs)} images could not be scanned, as told above")


def _prepared(
    network: "keras.Model",  # noqa: F821 - imported with the command
    mask: Path | None,
    options: dict,
    written: dict,
    others: Sequence[Path],
    overwrite: bool,
) -> Callable[[Path, Path], None]:
    """What scans one image of many into its folder, unless its results are there."""
    from zoo.scanning.scan import Scanner

    scanner = Scanner(network, **options, progress=True)

    def job(image: Path, folder: Path) -> None:
        own_mask = None if mask is None else _mask_of(image, mask)
        if _is_there(folder, lambda: {**scanner.key(image, own_mask), **written}):
            say(f"{image}: is there already, {folder}")
            return
        say(f"{image}:")
        _scan_one(scanner, image, own_mask, folder, written, others, overwrite)

    return job


def _scan_one(
    scanner: "Scanner",
    image: Path,
    mask: Path | None,
    folder: Path,
    written: dict,
    others: Sequence[Path],
    overwrite: bool,
) -> None:
    """Scan one image into its folder; geometry.json comes last and says that the rest is whole."""
    from zoo import plots
    from zoo.scanning.pixels import open_pixels
    from zoo.scanning.store import Store
    from zoo.scanning.viewer import view_of, write_viewer

    streamed = folder / f"scores.{'zarr' if written['format'] == 'zarr' else 'npy'}"
    with open_pixels(scanner.fcn, image, scanner.choice) as pixels:
        key = scanner.key(pixels, mask)
        made_by = MadeBy("zoo scan", {**key, **written})
        overwrite = overwrite or _is_version_1(folder, made_by.inputs)
        outputs = [Output(streamed, folder=streamed.suffix == ".zarr", maker=MadeBy("zoo scan", key))]
        outputs += [Output(folder / name) for name in _names(written)]
        read = [image, *([] if mask is None else [mask]), *others]
        with writing(outputs, made_by, read, overwrite):
            scores = replace(scanner(pixels, mask, streamed, overwrite, settle=False), made_from=dict(made_by.inputs))
            names, drawn = scores.class_names, written["class"]
            plots.overlay(scores, pixels, folder / "overlay.png", None if drawn is None else names.index(drawn))
            view, factor = view_of(pixels)
            write_viewer(scores, view, folder / "viewer.html", factor)
            answered = _answer(scores, written["answer"], folder / "answer.json")
            counts, missing = scores.wins()
            rows, columns = scores.scores.shape[:2]
            kept = _keep(scores, streamed, written["format"])
            _remove_others(folder, {kept, *(each.path for each in outputs[1:])})
            Store(streamed).settle()
    say_notes(image, scores.notes)
    say(f"{rows} x {columns} cells, {scores.sentence()}")
    if scores.other_function:
        say(f"note: {scores.other_function}")
    if any(scores.uncovered) and mask is None:
        top, left, bottom, right = scores.uncovered
        say(f"pixels that no window covers: {top} top, {left} left, {bottom} bottom, {right} right")
    if missing:
        causes = ["outside the mask"] if mask is not None else []
        causes += ["no window of any scale in the image"] if scores.scales else []
        say(f"cells not scanned: {missing} of {rows * columns} ({' or '.join(causes)})")
    scanned = max(rows * columns - missing, 1)
    shares = sorted(((count / scanned, name) for count, name in zip(counts, names, strict=True)), reverse=True)
    say("cells won: " + ", ".join(f"{name} {share:.1%}" for share, name in shares[:10] if share))
    if answered:
        say(answered)
    *first, last = (folder / name for name in (kept.name, "geometry.json", "overlay.png", "viewer.html"))
    say(f"wrote {', '.join(map(str, first))} and {last}")


def _names(written: dict) -> list[str]:
    """The files of a scan's folder, beside the scores that are streamed to it."""
    names = ["overlay.png", "viewer.html", "geometry.json", "scanned.npy"]
    names += ["scores.npz"] if written["format"] in (None, "npz") else []
    return [*names, "answer.json"] if written["answer"] else names


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
    for name in ("scores.npz", "scores.npy", "scores.zarr", "scanned.npy", "answer.json"):
        if (folder / name) not in own and (maker := maker_of(folder / name)) and maker.command == "zoo scan":
            remove(folder / name)


def _answer(scores: "ScoreMap", how: str | None, file: Path) -> str:
    """Write the answer for the whole image, and return it as a line; nothing without `how`."""
    from zoo.scanning.answers import answer

    if how is None:
        return ""
    probabilities = answer(scores, how).tolist()
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    name = scores.class_names[best]
    found = {"answer": how, "class": name, "probability": probabilities[best]}
    found["probabilities"] = dict(zip(scores.class_names, probabilities, strict=True))
    write_json(file, found, scores.made_by)
    return f"answer, {how}: {name} {probabilities[best]:.1%}"


def _is_folder(image: Path) -> bool:
    """Whether it is a folder of images, and no Zarr."""
    from zoo.pictures import is_picture

    return image.is_dir() and image.suffix != ".zarr" and not is_picture(image)


def _folders(images: tuple[Path, ...], output: Path) -> list[tuple[Path, Path]]:
    """Every image, those of folders too, and the folder of its results."""
    from zoo.pictures import list_pictures

    found: list[Path] = []
    for image in images:
        if not _is_folder(image):
            found.append(image)
            continue
        inside = list_pictures(image)
        if not inside.pictures:
            more = f" ({inside.note})" if inside.note else ""
            raise InputError(
                f"image folder {str(image)!r}: has no image{more}; accepted: PNG, JPEG, BMP, TIFF, .npy and Zarr"
            )
        if inside.note:
            say(f"{image}: {inside.note}")
        found += inside.pictures
    stems = Counter(image.stem for image in found)
    jobs = [(image, output / (image.name if stems[image.stem] > 1 else image.stem)) for image in found]
    (folder, uses), *_ = Counter(folder for _, folder in jobs).most_common(1)
    if uses > 1:
        raise InputError(
            f"images: received {uses} named {folder.name!r}; accepted: names of their own, one folder each"
        )
    return jobs


def _mask_of(image: Path, folder: Path) -> Path:
    """The picture in a folder of masks that has the image's name, or that alone has its stem."""
    from zoo.pictures import list_pictures

    masks = list_pictures(folder).pictures
    found = [each for each in masks if each.name == image.name] or [each for each in masks if each.stem == image.stem]
    if len(found) != 1:
        received = f"{len(found)} masks named {image.stem}.*" if found else f"no mask named {image.stem}.*"
        raise InputError(f"mask: {str(folder)!r} has {received}; accepted: one mask for every image")
    return found[0]


def _is_there(folder: Path, key: Callable[[], dict]) -> bool:
    """Whether the folder holds the results of this scan."""
    from zoo.scanning.keys import difference

    record = _record(folder)
    made_from = record.get("made_from")
    return isinstance(made_from, dict) and difference(made_from, key()) is None and _is_complete(folder, record)


def _is_complete(folder: Path, record: dict[str, Any]) -> bool:
    """Whether all files are there that a scan's record tells of; in a folder of version 1, the scores."""
    named = [
        record.get("scores"),
        record.get("scanned"),
        *(["overlay.png", "viewer.html"] if "made_by" in record else []),
    ]
    return all((folder / name).exists() for name in named if name)


def _is_version_1(folder: Path, key: Mapping[str, Any]) -> bool:
    """Whether the folder holds the results of this scan by version 1, whose files do not say what made them."""
    return "made_by" not in _record(folder) and _is_there(folder, lambda: dict(key))


def _record(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "geometry.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
