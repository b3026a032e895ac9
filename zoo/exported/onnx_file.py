"""ONNX: one file, whose `metadata_props` hold what it carries."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.engines.engine import Run, threads
from zoo.exported.carried import MEMBER, Carried, Precision
from zoo.exported.format import IMAGE, EngineFormat, Format
from zoo.exported.protobuf import inside, varint

if TYPE_CHECKING:
    import keras


class OnnxFile(Format):
    """What holds an ONNX file, written by tf2onnx."""

    keras_name = "onnx"
    extra = "onnx"
    needs = ("onnx", "tf2onnx")
    runtime = "onnxruntime"

    def write(self, model: "keras.Model", path: Path, carried: Carried) -> None:
        """Write it, and give the open sides of the image their names."""
        import onnx

        with _inlined():
            super().write(model, path, carried)
        made = onnx.load(str(path))
        (image,) = made.graph.input
        names = {1: ["length"], 2: ["height", "width"]}.get(len(image.type.tensor_type.shape.dim) - 2, [])
        open_sides = [side for side in image.type.tensor_type.shape.dim if not side.HasField("dim_value")]
        sides = ["batch", *(names if len(names) == len(open_sides) - 1 else map(str, range(1, len(open_sides))))]
        for side, name in zip(open_sides, sides, strict=True):
            side.dim_param = name
        for output in made.graph.output:
            output.type.tensor_type.shape.dim[0].dim_param = "batch"
        assert image.name == IMAGE
        onnx.save(made, str(path))

    def embed(self, path: Path, text: str) -> None:
        """Put it into `metadata_props`."""
        import onnx

        made = onnx.load(str(path))
        kept = [each for each in made.metadata_props if each.key != MEMBER]
        del made.metadata_props[:]
        made.metadata_props.extend([*kept, onnx.StringStringEntryProto(key=MEMBER, value=text)])
        onnx.save(made, str(path))

    def text(self, path: Path) -> str:
        """The entry, by ONNX Runtime."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return session.get_modelmeta().custom_metadata_map[MEMBER]


class Onnx(OnnxFile, EngineFormat):
    """The file by itself."""

    name = "onnx"
    ending = ".onnx"
    engine = "onnxruntime"
    precisions = ("float32", "int8")

    def from_onnx(self, source: Path, path: Path) -> None:
        """The same file."""
        shutil.copyfile(source, path)

    def scores(self, path: Path, precision: Precision, output: str) -> Run:
        """The file in ONNX Runtime, on the processor."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        # Which would keep the largest tile's memory, rounded up to twice that, and is no faster.
        options.enable_cpu_mem_arena = False
        session = onnxruntime.InferenceSession(_of_floats(path), options, providers=["CPUExecutionProvider"])
        return lambda images: session.run([output], {IMAGE: np.asarray(images, np.float32)})[0]


# Fields of onnx.proto: the model's graph, its input, that one's type, which is a tensor's, and the tensor's elements.
_GRAPH, _INPUT, _TYPE, _TENSOR, _ELEMENTS = 7, 11, 2, 1, 1
_FLOAT = 1


def _of_floats(path: Path) -> bytes:
    """A file whose image is float32; the cast to that, with which a model of other pixels begins, changes nothing then.

    The number of a type is one byte in the file, so nothing else in it moves.
    """
    data = bytearray(path.read_bytes())
    tensor = inside(data, (0, len(data)), _GRAPH, _INPUT, _TYPE, _TENSOR)
    data[varint(data, tensor, _ELEMENTS)] = _FLOAT
    return bytes(data)


@contextlib.contextmanager
def _inlined() -> Iterator[None]:
    """Trace functions within functions in their place.

    Keras calls a convolution of groups as a function that XLA compiles, which tf2onnx would leave a call.
    """
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
