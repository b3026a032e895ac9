"""The formats, by their names."""

from zoo.errors import InputError, unknown
from zoo.exporting.bioimageio_package import BioImageIo
from zoo.exporting.format import Format
from zoo.exporting.litert_file import LiteRT
from zoo.exporting.onnx_file import Onnx
from zoo.exporting.openvino_file import OpenVino
from zoo.exporting.saved_model import SavedModel

FORMATS: dict[str, Format] = {each.name: each for each in (SavedModel(), Onnx(), OpenVino(), LiteRT(), BioImageIo())}


def format_of(name: str) -> Format:
    """The format of a name.

    Raises:
        InputError: where there is none.
    """
    if name not in FORMATS:
        raise InputError(unknown("export format", name, FORMATS))
    return FORMATS[name]
