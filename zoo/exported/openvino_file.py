"""OpenVINO: an .xml file with its weights in a .bin beside it; `rt_info` holds what it carries."""

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from zoo.engines.engine import Run
from zoo.engines.openvino_core import check_bfloat16, compiled, reading_tensorflow
from zoo.exported.carried import MEMBER, Carried, Precision
from zoo.exported.format import EngineFormat, converting
from zoo.exported.onnx_file import Onnx

if TYPE_CHECKING:
    import keras


class OpenVino(EngineFormat):
    """OpenVINO's intermediate representation."""

    name = "openvino"
    keras_name = "openvino"
    ending = ".xml"
    extra = "openvino"
    needs = ("openvino",)
    runtime = "openvino"
    engine = "openvino"
    precisions = ("float32", "bfloat16", "int8")
    beside = (".bin",)

    def check(self, precision: Precision) -> None:
        """Check also that this processor has bfloat16, and what quantises is there, where either is asked for."""
        super().check(precision)
        if precision == "int8":
            Onnx().check(precision)
        if precision == "bfloat16":
            import openvino

            check_bfloat16(openvino.Core())

    def convert(self, model: "keras.Model", path: Path, signature: list["keras.InputSpec"], carried: Carried) -> None:
        """Have Keras write it, and leave each output one name: an operation that is dropped leaves a second one."""
        with reading_tensorflow():
            super().convert(model, path, signature, carried)
        import openvino

        written = openvino.Core().read_model(str(path))
        # A dict of outputs is flattened by its keys.
        for output, name in zip(written.outputs, sorted(each.name for each in carried.outputs), strict=True):
            output.tensor.set_names({name})
        named = path.with_name(f"named_{path.name}")
        openvino.serialize(written, str(named))
        for ending in (*self.beside, self.ending):
            named.with_suffix(ending).replace(path.with_suffix(ending))

    def from_onnx(self, source: Path, path: Path) -> None:
        """Convert it by OpenVINO's own reader of ONNX."""
        import openvino

        with converting(path):
            openvino.save_model(openvino.Core().read_model(str(source)), str(path), compress_to_fp16=False)

    def embed(self, path: Path, text: str) -> None:
        """Put it into the model's `rt_info`; the weights are not touched."""
        tree = ElementTree.parse(path)
        about = tree.getroot().find("rt_info")
        if about is None:
            about = ElementTree.SubElement(tree.getroot(), "rt_info")
        for old in about.findall(MEMBER):
            about.remove(old)
        ElementTree.SubElement(about, MEMBER, value=text)
        tree.write(path, encoding="utf-8", xml_declaration=True)

    def text(self, path: Path) -> str:
        """The element, by OpenVINO."""
        import openvino

        model = openvino.Core().read_model(str(path))
        if not model.has_rt_info([MEMBER]):
            raise KeyError(MEMBER)
        return model.get_rt_info([MEMBER]).astype(str)

    def scores(self, path: Path, precision: Precision, output: str) -> Run:
        """The file in OpenVINO, on the processor."""
        import openvino

        model = openvino.Core().read_model(str(path))
        # The conversion to float32, with which a model of other pixels begins, changes nothing then.
        model.inputs[0].get_node().set_element_type(openvino.Type.f32)
        model.validate_nodes_and_infer_types()
        made = compiled(model, precision)
        return lambda images: made(np.asarray(images, np.float32))[output]
