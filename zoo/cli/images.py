"""`zoo tile`: an image file, made ready for reading by regions."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo.cli.start import FILE, say_notes, which_picture, zoo

if TYPE_CHECKING:
    from zoo.pictures import Choice


@zoo.command(
    short_help="Write a large image as a tiled TIFF.",
    epilog="Example: zoo tile mosaic.png -o mosaic.tif",
)
@click.argument("image", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="The tiled BigTIFF, a .tif file.")
@which_picture
def tile(image: Path, output: Path, choice: "Choice") -> None:
    """Write IMAGE as a tiled TIFF, which is read region by region: upright, and else no pixel changes.

    For PNG, JPEG and BMP files over the size that is read whole, and for TIFF and Zarr with parts that are too large.
    The image, or its largest part, is decoded in memory: check that the file is no decompression bomb.
    """
    from zoo.pictures import write_tiled

    click.echo(f"wrote {write_tiled(image, output, choice, progress=True, say=lambda note: say_notes(image, [note]))}")
