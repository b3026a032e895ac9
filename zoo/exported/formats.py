"""The formats, by their names."""

from zoo.errors import InputError, unknown
from zoo.exported.bioimageio_package import BioImageIo
from zoo.exported.format import Format
from zoo.exported.litert_file import LiteRT
from zoo.exported.onnx_file import Onnx
from zoo.exported.openvino_file import OpenVino
from zoo.exported.saved_model import SavedModel
from zoo.exported.web_folder import Web

FORMATS: dict[str, Format] = {
    each.name: each for each in (SavedModel(), Onnx(), OpenVino(), LiteRT(), BioImageIo(), Web())
}


def format_of(name: str) -> Format:
    """The format of a name.

    Raises:
        InputError: where there is none.
    """
    if name not in FORMATS:
        raise InputError(unknown("export format", name, FORMATS))
    return FORMATS[name]
