"""An exported file in its own runtime: imported by the zoo, and run as a program where there is none.

`python -P alone.py FORMAT FILE PRECISION IMAGES SCORES` reads the batches of an .npz file and writes what the file
gives for them to another, with the runtime's version. Nothing but NumPy and the runtime is imported.
"""

import importlib.metadata
import os
import sys
import zipfile
from collections.abc import Callable

import numpy as np

# From a batch of images, of the type that the file takes, to the outputs by their names.
Run = Callable[[np.ndarray], dict[str, np.ndarray]]


def saved_model(path: str, precision: str) -> Run:
    """A SavedModel by its signature `serving_default`, or for the contents of files by `predict_bytes`."""
    import tensorflow as tf

    model = tf.saved_model.load(path)
    signatures = model.signatures

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        assert model is not None  # whose weights the signatures read, and of which they hold no reference
        if image.dtype.kind == "S":
            outputs = signatures["predict_bytes"](image_bytes=tf.constant(image.tolist()))
        else:
            outputs = signatures["serving_default"](image=tf.constant(image))
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def onnx(path: str | bytes, precision: str) -> Run:
    """An .onnx file, or what one holds, in ONNX Runtime, on the processor."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda image: dict(zip(names, session.run(names, {"image": image}), strict=True))


def openvino(path: str, precision: str) -> Run:
    """An .xml file in OpenVINO, on the processor; by itself OpenVINO takes the lowest precision that there is."""
    import openvino

    # What a file in int8 does not compute in int8, it computes in float32.
    hint = {"float32": "f32", "int8": "f32", "bfloat16": "bf16"}[precision]
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    names = [output.any_name for output in compiled.outputs]
    wanted = compiled.input(0).element_type.to_dtype()

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        if image.dtype != wanted:  # which OpenVINO would cast
            raise TypeError(f"image: received {image.dtype}; accepted: {wanted}")
        given = compiled(image)
        return {name: np.array(given[index]) for index, name in enumerate(names)}

    return run


def litert(path: str, precision: str) -> Run:
    """A .tflite file in the LiteRT interpreter, on all cores; its signature is resized to every batch."""
    from ai_edge_litert.interpreter import Interpreter

    # By itself it computes on one.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    interpreter = Interpreter(model_path=path, num_threads=cores)
    signature = interpreter.get_signature_runner("serving_default")
    return lambda image: dict(signature(image=image))


def bioimageio(path: str, precision: str) -> Run:
    """The ONNX file in a package for bioimage.io."""
    with zipfile.ZipFile(path) as package:
        return onnx(package.read("weights.onnx"), precision)


def web(path: str, precision: str) -> Run:
    """The ONNX file in a folder for browsers, which have ONNX Runtime's WebAssembly for it."""
    return onnx(f"{path}/model.onnx", precision)


OPENERS: dict[str, Callable[[str, str], Run]] = {
    "saved_model": saved_model,
    "onnx": onnx,
    "openvino": openvino,
    "litert": litert,
    "bioimageio": bioimageio,
    "web": web,
}
# The distribution of each format's runtime, whose version is reported.
RUNTIMES = {
    "saved_model": "tensorflow",
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "litert": "ai-edge-litert",
    "bioimageio": "onnxruntime",
    "web": "onnxruntime",
}


def main(name: str, path: str, precision: str, images: str, scores: str) -> None:
    """Run every batch of the file `images`, and write its outputs to the file `scores`, by batch and number."""
    run = OPENERS[name](path, precision)
    given: dict[str, np.ndarray] = {}
    names: list[str] = []
    with np.load(images) as batches:
        for key in batches.files:
            outputs = run(batches[key])
            names = sorted(outputs)
            given |= {f"{key}_{index}": outputs[output] for index, output in enumerate(names)}
    if "zoo" in sys.modules or ("keras" in sys.modules and name != "saved_model"):
        raise RuntimeError("the file was not run by its runtime alone")
    about = {"version": np.array(importlib.metadata.version(RUNTIMES[name])), "names": np.array(names)}
    np.savez(scores, allow_pickle=False, **about, **given)


if __name__ == "__main__":
    main(*sys.argv[1:])
