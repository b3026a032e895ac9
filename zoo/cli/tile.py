"""`zoo tile`: an image file, made ready for reading by regions."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo.cli import options as common
from zoo.cli.command import give
from zoo.cli.options import FILE
from zoo.cli.start import say_notes, zoo
from zoo.progress import say

if TYPE_CHECKING:
    from zoo.pictures import Choice


@zoo.command(
    short_help="Write a large image as a tiled TIFF.",
    epilog="Example: zoo tile mosaic.png -o mosaic.tif",
)
@click.argument("image", type=FILE)
@common.output("the tiled BigTIFF, a .tif file.")
@common.overwrite()
@common.which_picture()
def tile(image: Path, output: Path, overwrite: bool, choice: "Choice") -> None:
    """Write IMAGE as a tiled TIFF, which is read region by region: upright, and else no pixel changes.

    For PNG, JPEG and BMP files over the size that is read whole, and for TIFF and Zarr with parts that are too large.
    The image, or its largest part, is decoded in memory: check that the file is no decompression bomb.
    """
    from zoo.errors import InputError
    from zoo.files import Output, writing
    from zoo.made_by import MadeBy, key_of
    from zoo.pictures import write_tiled

    if not image.exists():
        raise InputError(f"image {image}: no such file")
    made_by = MadeBy("zoo tile", {"image": key_of(image), **choice.given})
    with writing([Output(output, ending=".tif")], made_by, [image], overwrite):
        write_tiled(image, output, choice, progress=True, say=lambda note: say_notes(image, [note]), made_by=made_by)
    give({"files": [str(output)]})
    say(f"wrote {output}")
