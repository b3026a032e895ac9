"""The description of a model as bioimage.io's format version 0.5 has it: rdf.yaml, test tensors, README."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from zoo.errors import InputError, listing
from zoo.exported.bioimageio_package import WEIGHTS, repacked
from zoo.exported.carried import Carried, ScoreTensor
from zoo.exporting.size_rules import MapRule, SizeRule, size_rules
from zoo.exporting.verification import cut_out, keras_scores
from zoo.network.graph import known_shape
from zoo.network.network import Network
from zoo.shipped import checksum

# Of the format; its fields are all that is used here, and readers of later ones take it.
_VERSION = "0.5.4"
YAML, README = "rdf.yaml", "README.md"
_NAMES: dict[int, tuple[str, ...]] = {0: (), 1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x")}
_COLOURS = {1: ("intensity",), 3: ("red", "green", "blue")}
_MEANINGS = {
    "logits": "Logits of the classes; softmax makes probabilities of them",
    "probabilities": "Probabilities of the classes, which sum to 1",
    "sigmoid": "Probabilities of the classes, each by itself",
    "counts": "Numbers of objects of each class in the window of a cell",
}
_IMAGE = "Raw samples as a file has them; preprocessing is inside the model"
# n of the size of the test tensors, where sizes are free.
_TEST = 3


@dataclass(frozen=True)
class About:
    """What a package tells of a model beyond what its card does.

    `licence`: of the weights, by its SPDX identifier. `cite`: text and DOI. `results`: what was measured, in Markdown.
    """

    authors: tuple[str, ...] = ()
    licence: str | None = None
    cite: tuple[tuple[str, str], ...] = ()
    results: str = ""


def complete(path: Path, network: Network, carried: Carried, images: Sequence[Any], about: About) -> None:
    """Add to a package what describes the model: YAML, test tensors of `images` or noise, and a README.

    Raises:
        InputError: see `describe`.
    """
    with repacked(path) as folder:
        describe(folder, folder / WEIGHTS, network, carried, images, about)


def describe(
    folder: Path, weights: Path, network: Network, carried: Carried, images: Sequence[Any], about: About
) -> None:
    """Write rdf.yaml, README.md and the test tensors of an ONNX file into its folder.

    The test output is Keras's own, of the model that was neither folded nor converted.

    Raises:
        InputError: where the size of an output follows no rule; where images are of another type than the file takes.
    """
    import onnx

    rules = size_rules(network)
    shape = (1, *known_shape(network.axes.shape(tuple(rule.side(_TEST) for rule in rules), network.channels)))
    image = cut_out(np.random.default_rng(0), network, images, shape, carried.image.dtype)
    scores = keras_scores(network, image)
    graph = onnx.load(str(weights), load_external_data=False)
    opset = next(each.version for each in graph.opset_import if each.domain in ("", "ai.onnx"))
    # Programs know the outputs by their order in the file.
    order = [[each.name for each in carried.outputs].index(output.name) for output in graph.graph.output]
    names = _identifiers([carried.image.name, *(carried.outputs[number].name for number in order)])
    pixel_size = _exact(carried.card.pixel_size)
    tensors = dict(zip(names, [image, *(scores[number] for number in order)], strict=True))
    for name, tensor in tensors.items():
        np.save(folder / f"test_{name}.npy", tensor)
    space = [
        {"type": "space", "id": axis, "size": _input_size(rule), **_scale(pixel_size, 1)}
        for axis, rule in zip(_NAMES[network.axes.count], rules, strict=True)
    ]
    channels = _COLOURS.get(network.channels) or _numbered("channel", network.channels)
    taken = {
        "id": names[0],
        "description": _IMAGE,
        "axes": _in_order(network, space, channels),
        "test_tensor": _file(folder / f"test_{names[0]}.npy"),
        "data": {"type": carried.image.dtype},
    }
    given = []
    for name, number in zip(names[1:], order, strict=True):
        output = carried.outputs[number]
        is_share = output.outputs in ("probabilities", "sigmoid")
        given.append(
            {
                "id": name,
                "description": _MEANINGS[output.outputs],
                "axes": _output_axes(network, output, number, rules, pixel_size, names[0]),
                "test_tensor": _file(folder / f"test_{name}.npy"),
                "data": {"type": "float32", **({"range": [0.0, 1.0]} if is_share else {})},
            }
        )
    _write_readme(folder / README, network, carried, rules, about)
    content = {
        "type": "model",
        "format_version": _VERSION,
        "name": f"{re.sub('[^A-Za-z0-9_+-]', '-', carried.model)[:100]} (bottleneck zoo)",
        "description": _summary(network, carried),
        "authors": [{"name": author} for author in about.authors],
        "cite": [{"text": text, "doi": doi} for text, doi in about.cite],
        **({} if about.licence is None else {"license": about.licence}),
        "documentation": README,
        "tags": ["bottleneck-zoo", "convolutional", "classification"],
        "inputs": [taken],
        "outputs": given,
        "weights": {"onnx": {**_file(weights), "opset_version": opset}},
    }
    (folder / YAML).write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110), "utf-8")


def _identifiers(names: Sequence[str]) -> list[str]:
    """Names as the format has them: of small letters, digits and underscores, up to 32; repeated ones have a number."""
    made: list[str] = []
    for name in names:
        short = re.sub(r"\W", "_", name.lower(), flags=re.ASCII)[:28]
        short = short if short[:1].isalpha() else f"output_{short}"[:28]
        count = sum(each == short or each.startswith(f"{short}_") and each[len(short) + 1 :].isdigit() for each in made)
        made.append(f"{short}_{count + 1}" if count else short)
    return made


def _file(path: Path) -> dict[str, str]:
    return {"source": path.name, "sha256": checksum(path)}


def _numbered(what: str, count: int) -> tuple[str, ...]:
    return tuple(f"{what} {number}" for number in range(count))


def _in_order(network: Network, space: list[dict], channels: Sequence[str]) -> list[dict]:
    """Axes as the network's maps have them."""
    channel = {"type": "channel", "channel_names": list(channels)}
    return [{"type": "batch"}, *((channel, *space) if network.axes.channels_first else (*space, channel))]


def _output_axes(
    network: Network,
    output: ScoreTensor,
    number: int,
    rules: Sequence[SizeRule],
    pixel_size: float | None,
    image: str,
) -> list[dict]:
    kind, known = network.head.kinds[network.graph.outputs[number]], network.card.class_names
    space = []
    for axis, rule in zip(_NAMES[network.axes.count], rules, strict=True):
        if (of_map := rule.maps.get(number)) is not None:
            space.append({"type": "space", "id": axis, **_output_size(of_map, image, axis, pixel_size)})
    if kind == "plane":
        return [{"type": "batch"}, *space]
    units = network.units(number)
    channels = known if len(known) == units else _numbered("class", units)
    if kind == "vector" and len(output.shape) == network.axes.rank:  # of a global pooling that keeps its axes
        space = [{"type": "space", "id": axis, "size": 1} for axis in _NAMES[network.axes.count]]
    return _in_order(network, space, channels)


def _input_size(rule: SizeRule) -> int | dict[str, int]:
    return {"min": rule.least, "step": rule.step} if rule.step else rule.least


def _output_size(rule: MapRule, image: str, axis: str, pixel_size: float | None) -> dict[str, Any]:
    if not rule.stride:
        return {"size": rule.offset}
    size = {"tensor_id": image, "axis_id": axis, "offset": rule.offset}
    return {"size": size, **({"halo": rule.halo} if rule.halo else {}), **_scale(pixel_size, float(rule.stride))}


def _scale(pixel_size: float | None, stride: float) -> dict[str, Any]:
    """The distance of two neighbours: in micrometres where it is known, else in pixels of the image."""
    return {"scale": float(stride)} if pixel_size is None else {"unit": "micrometer", "scale": pixel_size * stride}


def _exact(pixel_size: float | None) -> float | None:
    """A pixel size of 32 bits, so that products with sides and strides are exact in floats.

    Programs compute the sides of outputs as side * size / (size * stride) + offset, rounded down.
    """
    if pixel_size is None:
        return None
    share, exponent = math.frexp(pixel_size)
    return math.ldexp(round(math.ldexp(share, 32)), exponent - 32)


def _summary(network: Network, carried: Carried) -> str:
    known = carried.card
    what = "Counts objects of" if known.target == "count" else "Classes of images:"
    names = f"{what} {listing(list(known.class_names), 20)}. " if known.class_names else ""
    is_map = any(len(output.shape) == network.axes.rank for output in carried.outputs)
    size = " x ".join(map(str, network.training_size or ()))
    gives = f"A map of scores, each for a window of {size} pixels." if is_map and size else "One answer for an image."
    return f"{names}{gives} A convolutional net of the bottleneck zoo."[:500]


def _write_readme(path: Path, network: Network, carried: Carried, rules: Sequence[SizeRule], about: About) -> None:
    known = carried.card
    seen = "Images are taken at the size that they have; the model knows things of the training images' size alone."
    if known.pixel_size is not None:
        seen = f"Bring images to {known.pixel_size:g} µm a pixel first."
    elif known.scale is not None:
        seen = f"Scale images by {known.scale:g} first, as in training; the format has no step that does it."
    lines = [f"Samples: {carried.image.dtype}. {_IMAGE}.", seen, *_sizes(network, carried, rules)]
    report = "" if carried.verified is None else f" Where it was made, {carried.verified.line()}."
    licence = "none is stated" if about.licence is None else about.licence
    parts = [
        f"# {carried.model}\n\n{_summary(network, carried)}",
        "## Images and scores\n\n" + "\n".join(f"- {line}" for line in lines),
        "## Validation\n\n`bioimageio test` compares the scores of the test image with Keras's, and the outputs' sizes."
        f"{report} On your own images: compare the class with the highest score at places that you know.",
        *([about.results] if about.results else []),
        f"## Licence\n\nOf the weights: {licence}.",
    ]
    path.write_text("\n\n".join(parts) + "\n", "utf-8")


def _sizes(network: Network, carried: Carried, rules: Sequence[SizeRule]) -> list[str]:
    """What the sizes of outputs are, and which pixels a score is of, in words."""
    lines = []
    for number, output in enumerate(carried.outputs):
        for axis, rule in zip(_NAMES[network.axes.count], rules, strict=True):
            of_map = rule.maps.get(number)
            if of_map is None or not of_map.stride:
                continue
            halo = f"; the outermost {of_map.halo} at each border see zeros beyond the image" if of_map.halo else ""
            lines.append(
                f"`{output.name}` along {axis}: side / {of_map.stride} {of_map.offset:+d} cells of an image of "
                f"{rule.least}, {rule.least + rule.step}, {rule.least + 2 * rule.step}, ... pixels{halo}."
            )
    if any(rule.step for rule in rules):
        try:
            place = carried.geometry(tuple(rule.side(0) for rule in rules))
        except InputError:
            return lines
        lines.append(
            f"Cells of `{carried.outputs[0].name}`: {place.sentence()}; the first one's begins at {place.offset}."
        )
    return lines
