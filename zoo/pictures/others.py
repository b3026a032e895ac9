"""Which further files a picture's pixels are read from."""

import os
from pathlib import Path
from xml.etree import ElementTree

from zoo.pictures.decoding import broken, decoders
from zoo.pictures.tiff import MAGIC


def other_files(path: str | Path) -> dict[str, Path]:
    """The files that an OME-TIFF names as parts of its images and that are there, by those names; of others, none.

    No pixels are read, and none of these files is opened. Source: OME-TIFF specification, "TiffData".

    Raises:
        InputError: where the file is no image that can be read.
    """
    path = Path(path)
    with decoders(), broken(f"image {path}"):
        with path.open("rb") as file:
            if not file.read(4).startswith(MAGIC):
                return {}
        import tifffile

        with tifffile.TiffFile(path) as tiff:
            if tiff.ome_metadata is None:
                return {}
            root = ElementTree.fromstring(tiff.ome_metadata)
        # Links are followed, as tifffile does.
        folder, own = os.path.split(os.path.realpath(path))
        parts = [each for each in root.iter() if each.tag.endswith("UUID")]
        others = [each for each in parts if root.get("UUID") is None or each.text != root.get("UUID")]
        names = {name for each in others if (name := each.get("FileName")) is not None}
        files = {name: Path(folder, name) for name in sorted(names - {own})}
        return {name: file for name, file in files.items() if file.is_file()}
