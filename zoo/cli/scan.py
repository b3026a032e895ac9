"""`zoo scan`: a model slid over large images."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli import options as common
from zoo.cli.command import give, option
from zoo.cli.options import FILE, own_names, scales_of
from zoo.cli.start import backend_variables, start_for, zoo
from zoo.errors import InputError, refuse
from zoo.files import check_output
from zoo.progress import note, say

if TYPE_CHECKING:
    from zoo.pictures import Choice
    from zoo.scanning.options import Options

_OPTIONS = (
    option("--tile", type=int, help="Side in pixels of the region that one tile answers for.", apart_from=["--memory"]),
    option("--memory", help="What the process may hold, such as 2GiB: the tile is chosen to fit."),
    common.that_place_cells(),
    option(
        "--engine",
        help="What computes: keras or openvino. Default: keras; of an exported file its own runtime, alone.",
        shell_complete=common.completing(lambda: ("keras", "openvino")),
    ),
    common.precision("float32 or bfloat16, with the engine openvino."),
)


def _scan_options(command: Callable) -> Callable:
    """The options of a scan, given to `command` as its argument `options`."""

    @functools.wraps(command)
    def with_options(choice: "Choice", **given: Any) -> Any:
        from zoo.scanning.options import Options

        names = Options.__dataclass_fields__
        asked = {name: given.pop(name) for name in list(given) if name in names}
        asked["scales"] = scales_of(asked["scales"])
        return command(options=Options(choice=choice, **asked), **given)

    for each in reversed(_OPTIONS):
        with_options = each(with_options)
    return common.which_picture()(with_options)


@zoo.command(
    short_help="Slide a model over large images.",
    epilog="Example: zoo scan fcn.keras runs/quick/canvas_input.png -o scanned",
)
@common.MODEL
@click.argument("images", type=FILE, metavar="IMAGE...", nargs=-1, required=True)
@common.output("the folder for scores, geometry, overlay and viewer.")
@_scan_options
@option("--mask", type=FILE, help="Scan where this image is not 0; for several images, a folder of masks.")
@option(
    "--answer",
    "how",
    help="One answer for the whole image, merged from its cells; named as for --merge.",
    shell_complete=common.completing(common.merges),
)
@option(
    "--format",
    "format_",
    type=click.Choice(["npz", "npy", "zarr"]),
    help="The format; npz, npy or zarr for the scores. Default: npz up to 64 MiB of them, npy beyond.",
)
@common.class_name("its probability is drawn instead of the winner, or its density.")
@option("--no-check", is_flag=True, help="Do not compare cells of a padded net with their crops.")
@option("--workers", type=int, help="Share several images out among this many processes.")
@option("--gpus", is_flag=True, help="A GPU for each.", goes_with="--workers")
@common.overwrite()
def scan(
    model: Path,
    images: tuple[Path, ...],
    output: Path,
    options: "Options",
    mask: Path | None,
    how: str | None,
    format_: str | None,
    class_name: str | None,
    no_check: bool,
    workers: int | None,
    gpus: bool,
    overwrite: bool,
) -> None:
    """Slide a model over large images: scores, geometry.json, overlay.png and viewer.html in the output folder.

    Of a model that knows a background also the objects: objects.csv, objects.json, objects.geojson for QuPath, and
    counts.csv. Of a model that counts: counts.csv, counts.json, and the density of objects, density.png.

    IMAGE is a file, or a folder of images. Several images have a folder each in the output folder, by their names; one
    that cannot be scanned is named at the end, and one that is there already is left as it is. A scan that was stopped
    goes on where it was. Beside the images' folders lie the tables of all of them, and uncertainty.csv, in which a
    classifier's least certain answers come first. A classifier is converted first, and an image is brought to the scale
    that the model was trained at, where it knows it; places in files are in pixels of IMAGE itself. Of a padded net at
    most 100 grid cells, of all images together, are compared with its answers to their crops, in a tenth of the time.
    With --workers, Ray runs that many processes here, or on the cluster that RAY_ADDRESS names, and --memory is what
    each may hold.

    MODEL may be a converted model that `zoo export` wrote as .onnx or .xml: ONNX Runtime or OpenVINO computes it then,
    without Keras and TensorFlow. It is not converted, and cells nearer than the model's own need the Keras model.
    """
    from zoo.classes import chosen_class
    from zoo.cli.object_tables import FolderTables, asked_of, tables_of
    from zoo.cli.ranking import TABLE as RANKED
    from zoo.cli.ranking import Ranking
    from zoo.cli.scan_results import ImageScans, mask_of, results_of, say_crops
    from zoo.large_images import files_at, scanner_at
    from zoo.made_by import MadeBy
    from zoo.scanning.crop_check import shares
    from zoo.scanning.memory import check_pictures
    from zoo.scanning.merging import check_merge
    from zoo.scores import check_no_counts

    start_for(model)
    check_output(output, folder=True)
    merge = None if how is None else check_merge(how)
    scanner, failed = scanner_at(model, options, progress=True), []
    if workers is None:
        check_pictures(options.budget)
    if how is not None:
        check_no_counts("answer", scanner.network.outputs_are[0])
    class_name = chosen_class(class_name, scanner.network.class_names)
    read = files_at(model)
    if len(images) == 1 and not _is_folder(images[0]):
        if workers is not None:
            refuse("--workers", f"{workers} for one image", "several images, or a folder")
        if mask is not None and _is_folder(mask):
            mask = mask_of(images[0], mask)
        checked = {} if no_check else shares([images[0].absolute()])
        scans = ImageScans(options, mask, format_, class_name, merge, read, overwrite, checked)
        scans.scan_image(scanner, images[0], mask, output)
        give({"images": [results_of(images[0], output)], "failed": [], "counts": None, "files": []})
        return
    if mask is not None and not _is_folder(mask):
        refuse("mask", f"the file {str(mask)!r} for several images", "a folder of masks")
    tasks = _folders(images, output)
    others = [each.absolute() for each in (*read, *(image for image, _ in tasks))]
    mask = None if mask is None else mask.absolute()
    checked = {} if no_check else shares([image.absolute() for image, _ in tasks])
    scans = ImageScans(options, mask, format_, class_name, merge, others, overwrite, checked)
    kind, made_by = tables_of(scanner), MadeBy("zoo scan", {**scanner.for_all_images, **asked_of(scanner)})
    tables = None if kind is None else FolderTables(kind, output, made_by, others, overwrite)
    ranking = Ranking(output, made_by, others, overwrite)
    if workers is not None:
        from zoo.scanning.fleet import scan_many

        for scanned in scan_many(read[0], tasks, scans.prepare_file, workers, gpus, backend_variables(), progress=True):
            if scanned.text:
                say(scanned.text.rstrip("\n"))
            if scanned.error:
                failed.append((scanned.image, scanned.error))
    else:
        scan_image = scans.prepare(scanner)
        for image, folder in tasks:
            try:
                scan_image(image, folder)
            except InputError as error:
                failed.append((image, error))
    say_crops(folder for _, folder in tasks)
    given_up = {image for image, _ in failed}
    without = {folder for image, folder in tasks if image in given_up}
    counts = None if tables is None else tables.write(without)
    ranking.write(without)
    names = (*(() if kind is None else kind.names), RANKED)
    give(
        {
            "images": [results_of(image, folder) for image, folder in tasks if image not in given_up],
            "failed": [{"image": str(image), "reason": str(reason)} for image, reason in failed],
            "counts": counts,
            "files": [str(output / name) for name in names if (output / name).is_file()],
        }
    )
    for image, reason in failed:
        click.echo(str(reason) if str(image) in str(reason) else f"{image}: {reason}", err=True)
    if failed:
        raise InputError(f"{len(failed)} of {len(tasks)} images could not be scanned; the lines above say why")


def _is_folder(image: Path) -> bool:
    """Whether it is a folder of images, and no Zarr."""
    from zoo.pictures import is_picture

    return image.is_dir() and image.suffix != ".zarr" and not is_picture(image)


def _folders(images: tuple[Path, ...], output: Path) -> list[tuple[Path, Path]]:
    """Every image, those of folders too, and the folder of its results."""
    from zoo.pictures import list_pictures

    files: list[Path] = []
    for image in images:
        if not _is_folder(image):
            files.append(image)
            continue
        inside = list_pictures(image)
        if not inside.pictures:
            more = f" ({inside.note})" if inside.note else ""
            raise InputError(
                f"image folder {str(image)!r}: has no image{more}; accepted: PNG, JPEG, BMP, TIFF, .npy and Zarr"
            )
        if inside.note:
            note(f"{image}: {inside.note}")
        files += inside.pictures
    return [(image, output / name) for image, name in zip(files, own_names(files), strict=True)]
