"""The page of an export for browsers: which models it takes, ONNX Runtime's WebAssembly files, and examples."""

import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.card import PixelType
from zoo.errors import quoted, refuse
from zoo.exported.carried import Carried
from zoo.made_by import json_text
from zoo.network.network import Network
from zoo.objects.cell_classes import CellClasses
from zoo.scanning.overlay import MARK, opacity_of, palette, pattern
from zoo.scanning.viewer import LOOK
from zoo.shipped import checksum

# What the page reads beside `zoo.json`.
ABOUT = "page.json"
_PAGE = Path(__file__).with_name("web")
# Pixels of an image that the page takes, and pixels a side: a canvas of browsers has no more.
MOST_PIXELS, MOST_SIDE = 2**25, 2**14
# In a package `onnxruntime-web`: what computes on the processor alone.
_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_PACKAGE = "onnxruntime-web"
_HOW = f"the folder of an unpacked {_PACKAGE}: `npm pack {_PACKAGE}` and `tar xf` make `package`"


@dataclass(frozen=True)
class WebRuntime:
    """An unpacked package `onnxruntime-web`; made by `WebRuntime.at`."""

    folder: Path
    version: str
    licence: str

    @classmethod
    def at(cls, folder: str | Path | None) -> "WebRuntime":
        """The package in a folder.

        Raises:
            InputError: saying how to get one, where there is none, or one without the files that are needed.
        """
        if folder is None:
            refuse("runtime", "none with the format web", _HOW)
        folder = Path(folder)
        try:
            about = json.loads((folder / "package.json").read_text(encoding="utf-8"))
            known = about["name"] == _PACKAGE
            runtime = cls(folder, str(about["version"]), str(about["license"]))
        except (OSError, ValueError, KeyError, TypeError):
            known = False
        if not known:
            refuse("runtime", quoted(str(folder)), _HOW)
        for file in runtime.files:
            if not file.is_file():
                refuse("runtime", f"{_PACKAGE} {runtime.version} without dist/{file.name}", "version 1.19 or newer")
        return runtime

    @property
    def files(self) -> tuple[Path, ...]:
        """What the page needs of it."""
        return tuple(self.folder / "dist" / name for name in _FILES)

    @property
    def notices(self) -> tuple[Path, ...]:
        """What it says of licences, in files of their own."""
        named = re.compile("(?i)licen[cs]e|third.?party")
        return tuple(each for each in sorted(self.folder.iterdir()) if each.is_file() and named.match(each.name))

    def copy(self, folder: Path) -> None:
        """Write those files, and where they are from."""
        folder.mkdir()
        for file in (*self.files, *self.notices):
            shutil.copyfile(file, folder / file.name)
        sums = "".join(f"{checksum(folder / file.name)}  {file.name}\n" for file in self.files)
        (folder / "ORIGIN.txt").write_text(
            f"{_PACKAGE} {self.version}, licence {self.licence}, as its package.json says: files of its folder dist,\n"
            f"unchanged, with their SHA-256.\n\n{sums}",
            encoding="utf-8",
        )


def check_web(network: Network, pixels: PixelType | str, images: Sequence[Any]) -> None:
    """Check that the page takes a model and examples.

    Args:
        network: the model's.
        pixels: the type of the images that it takes.
        images: the examples.

    Raises:
        InputError: where it does not.
    """
    network.check_one_image()
    network.check_one_output()
    what, sides = f"model {network.name!r}", network.model.inputs[0].shape[1:-1]
    if not network.gives_map or set(sides) != {None} or network.axes.channels_first:
        given = "one answer for an image" if not network.gives_map else f"images of {network.model.inputs[0].shape[1:]}"
        refuse(f"{what}: --format web", given, "the conversion of a classifier (`zoo convert`)")
    if network.outputs_are[0] == "counts":
        refuse(f"{what}: --format web", "a model that counts", "a classifier's conversion")
    # A model of others, without a card, takes the numbers of any image.
    if pixels != "uint8" and not (pixels == "float32" and network.card.dtype is None):
        refuse(f"{what}: --format web", f"a model of {pixels} images", "one of uint8, as browsers decode them")
    if network.channels not in (1, 3):
        refuse(f"{what}: --format web", f"images of {network.channels} channels", "1 or 3")
    if math.inf in network.geometry().window:  # which is refused where a reach is not known
        refuse(f"{what}: --format web", "a block that pools over the whole image", "a model of local layers")
    _cell_classes(network)  # which checks the names of the card
    for image in images:
        height, width = _given(image).shape[:2]
        if height * width > MOST_PIXELS or max(height, width) > MOST_SIDE:
            accepted = f"up to {MOST_PIXELS:,} pixels, {MOST_SIDE:,} a side, which the page takes"
            refuse("--image", f"{height} x {width} pixels", accepted)


def complete_web(path: Path, network: Network, carried: Carried, images: Sequence[Any], runtime: WebRuntime) -> None:
    """Write the page, its runtime, and examples into the folder of a model."""
    for file in (*sorted(_PAGE.iterdir()), LOOK):
        shutil.copyfile(file, path / file.name)
    runtime.copy(path / "runtime")
    about = {**about_page(network, carried), "examples": _examples(path / "examples", images)}
    about["runtime"] = {"name": "ONNX Runtime Web", "version": runtime.version, "licence": runtime.licence}
    (path / ABOUT).write_text(json_text(about), encoding="utf-8")


def about_page(network: Network, carried: Carried) -> dict[str, Any]:
    """What the page has to know beyond what the model's file carries, as JSON holds it."""
    classes = _cell_classes(network)
    return {
        "classNames": classes.class_names,
        "outputs": carried.outputs[0].outputs,
        "findObjects": classes.find_objects,
        "objects": classes.objects,
        "least": [least if math.isfinite(least) else None for least in classes.least.tolist()],
        "colours": np.round(255 * palette(len(classes.class_names)), 3).tolist(),
        "patterns": [pattern(index) for index in range(len(classes.class_names))],
        "opacity": opacity_of(classes),
        "mark": MARK,
        "mostPixels": MOST_PIXELS,
        "mostSide": MOST_SIDE,
        "verified": "" if carried.verified is None else carried.verified.line(),
    }


def _cell_classes(network: Network) -> CellClasses:
    return CellClasses(network.class_names, network.card.background, network.card.peaks)


def _given(image: Any) -> Any:
    """An image at its own size, where it was brought to a model's scale."""
    return getattr(image, "given", None) or image


def _examples(folder: Path, images: Sequence[Any]) -> list[str]:
    """Write images as PNG; their files' names."""
    from PIL import Image

    names: list[str] = []
    for image in map(_given, images):
        folder.mkdir(exist_ok=True)
        file = getattr(image, "file", None)
        stem = re.sub(r"[^\w.-]", "_", Path(file).stem, flags=re.ASCII) if file is not None else "image"
        name = f"{stem}.png" if f"{stem}.png" not in names else f"{stem}_{len(names) + 1}.png"
        pixels = np.asarray(image[:, :])
        if pixels.dtype != np.uint8:
            pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(folder / name)
        names.append(name)
    return names
