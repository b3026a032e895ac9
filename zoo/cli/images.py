"""`zoo tile`: an image file, made ready for reading by regions."""

from pathlib import Path

import click

from zoo.cli.start import FILE, quiet_start, zoo


@zoo.command(
    short_help="Write a large image as a tiled TIFF.",
    epilog="Example: zoo tile mosaic.png -o mosaic.tif",
)
@click.argument("image", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="The tiled BigTIFF, a .tif file.")
@click.option("--page", type=int, default=0, show_default=True, help="Which image of a TIFF with several.")
@click.option("--level", type=int, default=0, show_default=True, help="Which level of a pyramid.")
def tile(image: Path, output: Path, page: int, level: int) -> None:
    """Write IMAGE as a tiled TIFF, which is read region by region; no pixel changes.

    For PNG, JPEG and BMP files over the size that is read whole, and for TIFF and Zarr with parts that are too large.
    The image, or its largest part, is decoded in memory: check that the file is no decompression bomb.
    """
    with quiet_start():
        from zoo.rasters import write_tiled
    click.echo(f"wrote {write_tiled(image, output, page, level, progress=True)}")
