"""`zoo scan`: a model slid over large images."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo.cli.start import FILE, quiet_start, say_notes, which_picture, zoo
from zoo.errors import InputError
from zoo.files import check_output, write_json

if TYPE_CHECKING:
    from zoo.pictures import Choice
    from zoo.scanning.scan import Scanner
    from zoo.scanning.score_map import ScoreMap

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
    choice: "Choice",
) -> None:
    """Slide a model over large images: scores, geometry.json, overlay.png and viewer.html in the output folder.

    IMAGE is a file, or a folder of images. Several images have a folder each in the output folder, by their names; one
    that cannot be scanned is told at the end, and one that is there already is left as it is. A scan that was stopped
    goes on where it was. A classifier is converted first. With --workers, Ray runs that many processes here, or on the
    cluster that RAY_ADDRESS names, and --memory is what each may hold.
    """
    with quiet_start():
        from zoo import saving
        from zoo.errors import unknown
        from zoo.graph import check_one_output
        from zoo.scanning.answers import check_pooling
        from zoo.scanning.scales import check_scales
        from zoo.scanning.scan import Scanner
    check_output(output, folder=True)
    for each in filter(None, (merge, how)):
        check_pooling(each)
    sizes = None if scales is None else check_scales(scales.split(","))
    network = saving.load(model)
    check_one_output(network)
    names = saving.class_names(network)
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
        if mask is not None and mask.is_dir():
            mask = _mask_of(images[0], mask)
        _scan_one(Scanner(network, **options, progress=True), images[0], mask, output, written)
        return
    jobs = _folders(images, output)
    prepare = partial(_prepared, mask=None if mask is None else mask.absolute(), options=options, written=written)
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
) -> Callable[[Path, Path], None]:
    """What scans one image of many into its folder, unless its results are there."""
    from zoo.scanning.scan import Scanner

    scanner = Scanner(network, **options, progress=True)

    def job(image: Path, folder: Path) -> None:
        own_mask = None if mask is None else _mask_of(image, mask)
        if _is_there(folder, lambda: {**scanner.key(image, own_mask), **written}):
            click.echo(f"{image}: is there already, {folder}")
            return
        click.echo(f"{image}:")
        _scan_one(scanner, image, own_mask, folder, written)

    return job


def _scan_one(scanner: "Scanner", image: Path, mask: Path | None, folder: Path, written: dict) -> None:
    """Scan one image into its folder; geometry.json comes last and says that the rest is whole."""
    import numpy as np

    from zoo import plots
    from zoo.scanning.pixels import open_pixels
    from zoo.scanning.viewer import view_of, write_viewer

    streamed = folder / f"scores.{'zarr' if written['format'] == 'zarr' else 'npy'}"
    with open_pixels(scanner.fcn, image, scanner.choice) as pixels:
        scores = scanner(pixels, mask, streamed)
        scores = replace(scores, made_from={**scores.made_from, **written})
        names, drawn = scores.class_names, written["class"]
        plots.overlay(scores, pixels, folder / "overlay.png", None if drawn is None else names.index(drawn))
        view, factor = view_of(pixels)
    write_viewer(scores, view, folder / "viewer.html", factor)
    answered = _answer(scores, written["answer"], folder / "answer.json")
    counts, missing = scores.wins()
    rows, columns = scores.scores.shape[:2]
    if written["format"] == "npz" or written["format"] is None and scores.scores.nbytes <= _SMALL:
        replace(scores, scores=np.array(scores.scores)).save(folder)
        streamed.unlink()
        streamed = folder / "scores.npz"
    else:
        scores.save_geometry(folder, streamed.name)
    say_notes(image, pixels.notes)
    click.echo(f"{rows} x {columns} cells, {scores.sentence()}")
    if scores.other_function:
        click.echo(f"note: {scores.other_function}")
    if any(scores.uncovered):
        top, left, bottom, right = scores.uncovered
        click.echo(f"pixels that no window covers: {top} top, {left} left, {bottom} bottom, {right} right")
    if missing:
        causes = ["outside the mask"] if mask is not None else []
        causes += ["no window of any scale in the image"] if scores.scales else []
        click.echo(f"cells not scanned: {missing} of {rows * columns} ({' or '.join(causes)})")
    scanned = max(rows * columns - missing, 1)
    shares = sorted(((count / scanned, name) for count, name in zip(counts, names, strict=True)), reverse=True)
    click.echo("cells won: " + ", ".join(f"{name} {share:.1%}" for share, name in shares[:10] if share))
    if answered:
        click.echo(answered)
    *first, last = (folder / name for name in (streamed.name, "geometry.json", "overlay.png", "viewer.html"))
    click.echo(f"wrote {', '.join(map(str, first))} and {last}")


def _answer(scores: "ScoreMap", how: str | None, file: Path) -> str:
    """Write the answer for the whole image, and return it as a line; without `how`, remove one of another scan."""
    from zoo.scanning.answers import answer

    if how is None:
        file.unlink(missing_ok=True)
        return ""
    probabilities = answer(scores, how).tolist()
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    name = scores.class_names[best]
    found = {"answer": how, "class": name, "probability": probabilities[best]}
    write_json(file, {**found, "probabilities": dict(zip(scores.class_names, probabilities, strict=True))})
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
            click.echo(f"{image}: {inside.note}")
        found += inside.pictures
    stems = Counter(image.stem for image in found)
    jobs = [(image, output / (image.name if stems[image.stem] > 1 else image.stem)) for image in found]
    (folder, uses), *_ = Counter(folder for _, folder in jobs).most_common(1)
    if uses > 1:
        raise InputError(
            f"images: received {uses} named {folder.name!r}; accepted: names of their own, one folder each"
        )
    return jobs


def _mask_of(image: Path, mask: Path) -> Path:
    if not mask.is_dir():
        return mask
    found = [each for each in sorted(mask.iterdir()) if each.stem == image.stem]
    if not found:
        raise InputError(f"mask: {str(mask)!r} has no file {image.stem}.*; accepted: a mask for every image")
    return found[0]


def _is_there(folder: Path, key: Callable[[], dict]) -> bool:
    """Whether the folder holds the results of this scan."""
    from zoo.scanning.keys import difference

    try:
        about = json.loads((folder / "geometry.json").read_text(encoding="utf-8"))
        return difference(about["made_from"], key()) is None
    except (OSError, ValueError, KeyError):
        return False
