"""`zoo.export`: a trained model, written for another runtime and verified there."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import keras

from zoo.card import PIXEL_TYPES
from zoo.convert.copy import in_dtype
from zoo.convert.folding import fold as fold_model
from zoo.errors import InputError, chosen, quoted, refuse
from zoo.exported.bioimageio_package import BioImageIo
from zoo.exported.carried import Carried, Precision, ScoreTensor, Tensor
from zoo.exported.format import IMAGE, CannotHold, EngineFormat, Format
from zoo.exported.formats import format_of
from zoo.exported.web_folder import Web
from zoo.exporting.bioimageio_description import About, complete
from zoo.exporting.culprit import refuse_culprit
from zoo.exporting.quantised import Trial, measured, refuse_quantised, write_quantised
from zoo.exporting.verification import verified
from zoo.exporting.web_page import WebRuntime, check_web, complete_web
from zoo.files import Output, check_output, replacing_all
from zoo.made_by import MadeBy, key_of, sign
from zoo.network.network import Network
from zoo.settings import own_settings

# What a single output is called, by what it is; the outputs of a model with several keep their own names.
_NAMES = {"logits": "logits", "probabilities": "probabilities", "sigmoid": "probabilities", "counts": "counts"}


@own_settings()
def export(
    model: keras.Model,
    path: str | Path,
    format: str = "saved_model",
    precision: Precision = "float32",
    fold: bool = True,
    images: Sequence[Any] = (),
    made_by: MadeBy | None = None,
    about: About | None = None,
    trial: Trial | None = None,
    runtime: WebRuntime | None = None,
) -> Path:
    """Write `model` in another runtime's format, and verify it there, in a process without the zoo.

    The file takes `image`, (B, H, W, C) or (B, L, C) as the model does, of the type that the model's card names: uint8
    where the model was built by the zoo and its card names none, else that of the model's own input. The batch is free,
    and so are the sides that the model leaves open. It gives `logits` or `probabilities`, or each of several outputs by
    its own name. A SavedModel is a folder, with the signature `serving_default`; the others are files: .onnx, .xml
    (with .bin), .tflite. For browsers there is a folder with a page, whose .onnx file takes float32. All carry the
    model's card (see `zoo.exported.carried`).

    Args:
        model: the model, Functional or Sequential, of one input.
        path: the folder or file.
        format: a name in `zoo.exported.formats.FORMATS`.
        precision: what it is to be computed in; bfloat16 by OpenVINO alone, int8 by ONNX Runtime and OpenVINO.
        fold: fold normalisation into convolutions, and leave out what training alone needs (see `zoo.convert.folding`).
        images: what the file is compared with the model on, arrays (H, W, C) at the model's scale or what is read by
            slices like them; noise without. In bfloat16 the winner of noise is often as good as drawn.
        made_by: the command that makes it, which has checked what is there already (`zoo.files.writing`); without, only
            a new path is accepted.
        about: what a package of the format bioimageio tells of the model beyond its card.
        trial: in int8, what it is calibrated and measured on; the file is also compared on its test images, where no
            `images` are given.
        runtime: what runs the file in browsers, of the format web, whose page has `images` as examples.

    Raises:
        InputError: for an unknown format, a missing extra, a path that exists, or another ending than the format's; for
            an argument that another format or precision takes; and naming the layer that the format, or its runtime,
            does not have.
        Differs: where the file gives other scores than the model, takes images and no files of them as it should, or in
            int8 is less accurate by more than the trial's tolerance. Nothing is written.
        OSError: where the path cannot be written.
    """
    path, kind = Path(path), format_of(format)
    if made_by is None:
        for each in outputs_of(path, format, precision):
            if os.path.lexists(each.path):
                raise InputError(f"{each.what} {str(each.path)!r}: exists already; accepted: a new path")
            check_output(each.path, each.what, each.ending, each.folder)
    if (precision == "int8") != (trial is not None):
        received = f"{'no' if trial is None else 'a'} trial, which int8 alone is calibrated and measured on"
        refuse(f"precision {precision}", received, "both or neither")
    if trial is not None and not fold:
        refuse("precision int8", "normalisation that is not folded", "with folding")
    source = Network.of(model)
    if isinstance(kind, Web):
        runtime = runtime or WebRuntime.at(None)
        check_web(source, pixel_type(source), images)
    elif runtime is not None:
        refuse(f"export format {format!r}", "a runtime for browsers", "it with the format web")
    elif len(source.graph.inputs) != 1:
        source.check_one_image((1, 2))
    if about is not None and not isinstance(kind, BioImageIo):
        received = "what a package tells of the model (about)"
        refuse(f"export format {format!r}", received, "it with the format bioimageio")
    reference = _in_float32(source)
    # Keras looks at the ending, so the temporary name is a folder beside the path, not another name.
    with replacing_all(path) as working:
        made = working / path.name
        carried = _carried(source, kind, precision)
        write(kind, reference, carried, made, fold, images, about, trial, runtime)
        if made_by is not None:
            beside = {each.name: key_of(each) for each in working.iterdir() if each != made}
            sign(made, dataclasses.replace(made_by, beside=beside))
    return path


def write(
    kind: Format,
    network: Network,
    carried: Carried,
    path: Path,
    fold: bool,
    images: Sequence[Any] = (),
    about: About | None = None,
    trial: Trial | None = None,
    runtime: WebRuntime | None = None,
) -> None:
    """Write a network at `path`, verify it, and put the report into it.

    Raises:
        InputError, Differs: see `export`.
    """
    lighter = Network.of(fold_model(network)) if fold else network
    named = dict(zip([each.name for each in carried.outputs], lighter.model.outputs, strict=True))
    served = keras.Model(lighter.model.inputs[0], named, name=network.name)
    try:
        if trial is not None:
            assert isinstance(kind, EngineFormat)  # which alone have int8
            trial.check(network, carried.image.dtype)
            write_quantised(kind, served, path, carried, trial)
            images = images or trial.pictures(network)
        else:
            kind.write(served, path, carried)
        kind.embed(path, carried.text())
        report = verified(network, kind, path, carried, images)
        quantised = None if trial is None else measured(network, kind, path, carried, trial)
    except CannotHold as error:
        if trial is not None:
            refuse_quantised(kind, network, error)
        refuse_culprit(kind, lighter, carried, error)
    carried = carried.model_copy(update={"verified": report, "quantised": quantised})
    kind.embed(path, carried.text())
    if isinstance(kind, BioImageIo):
        complete(path, network, carried, images, about or About())
    if runtime is not None:
        complete_web(path, network, carried, images, runtime)
    if kind.carried(path) != carried:
        raise RuntimeError(f"export {path.name!r}: what it carries cannot be read again")


def outputs_of(path: Path, format: str, precision: str = "float32") -> list[Output]:
    """What an export writes, the file or folder that is asked for first.

    Raises:
        InputError: for an unknown format or precision, or one whose packages are not installed, or that Keras's backend
            cannot write; for a folder of other files.
    """
    kind = format_of(format)
    if (backend := keras.backend.backend()) not in kind.backends:
        refuse(f"export format {format!r}", f"{backend} as Keras's backend", f"KERAS_BACKEND={kind.backends[0]}")
    kind.check(chosen("precision", precision, get_args(Precision)))
    return kind.outputs(path)


def _carried(network: Network, kind: Format, precision: Precision) -> Carried:
    model = network.model
    image = Tensor(name=IMAGE, dtype=kind.pixels or pixel_type(network), shape=(None, *model.inputs[0].shape[1:]))
    several = len(model.outputs) > 1
    try:
        network.check_one_image((1, 2))
        program, numbers = network.program.to_data(), network.numbers_a_position
    except InputError:  # of a layer of any reach, or of images without channels
        program, numbers = None, {}
    keys = network.graph.outputs if program is not None else (None,) * len(model.outputs)
    outputs = [
        ScoreTensor(
            name=name if several else _NAMES[are], dtype="float32", shape=tuple(tensor.shape), outputs=are, key=key
        )
        for name, tensor, are, key in zip(network.output_names, model.outputs, network.outputs_are, keys, strict=True)
    ]
    return Carried(
        format=kind.name,
        precision=precision,
        model=network.name,
        card=network.card,
        image=image,
        outputs=tuple(outputs),
        channels_first=network.axes.channels_first,
        program=program,
        numbers_a_position=numbers,
        training_size=network.training_size,
        window=network.window,
    )


def pixel_type(network: Network) -> str:
    """The type of the images that a model takes: as its card says it, else as its input does."""
    about, own = network.card, keras.backend.standardize_dtype(network.model.inputs[0].dtype)
    if about.dtype is not None:
        return about.dtype
    if about.preprocess is not None:
        return "uint8"
    if "float" in own:
        return "float32"
    if own not in PIXEL_TYPES:
        refuse(f"model {network.name!r}", f"an input of {quoted(own)}", ", ".join(PIXEL_TYPES))
    return own


def _in_float32(network: Network) -> Network:
    """The network itself where all of it computes in float32, else a copy that does."""
    floats = {each for each in network.compute_dtypes if "float" in each}
    return network if floats <= {"float32"} else in_dtype(network, "float32")
