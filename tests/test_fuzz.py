"""Mutated inputs: no exception but InputError, no hang, no memory beyond what was decoded."""

import os
import signal
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import psutil
import pytest
import tifffile
import zarr
from PIL import Image

import zoo
from zoo.archives import read_arrays
from zoo.classes import class_list
from zoo.config import load_config
from zoo.data import read_image
from zoo.data.labels import read_labels
from zoo.errors import InputError

SECONDS = 10
# Beyond the level of the process before an input, and twice what was decoded of it.
MEMORY = 200 * 2**20
TOKENS = [
    *"[]{}:,&*<!%@`'\"|>-?#\n\t\0=./$", "null", "true", "-1", "0", "1e400", ".nan", ".inf", "9" * 400, "<<",
    "*a", "&a ",
    "!!int ", "!!binary ", "[" * 5000, "{a: " * 500, "\x1b[31m", "e\u0301", "\ud800", "2147483648", "100000000000",
]  # fmt: skip
OVERRIDES = [
    "train.epochs=3", "model.mlpconvs.0.kernel=5", "model.image_size=[9, 9]", "model.head={kind: pooled}", "seed=1",
    "model.mlpconvs.1.filters=[8, 8]", "data.name=npz", "canvas.size=[200, 200]", "model.mlpconvs.0.pool.size=2",
    "train.optimizer.learning_rate=1e-3", "model.preprocess={mean: [1], std: [2]}", "train.freeze=stem",
]  # fmt: skip


class Hang(BaseException):
    """The watchdog's: no handler of ours or of a library may take it for its own error."""


@contextmanager
def watched() -> Iterator[None]:
    def bark(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def mutated_text(text: str, rng: np.random.Generator) -> str:
    for _ in range(rng.integers(1, 4)):
        at, end = sorted(rng.integers(0, len(text) + 1, 2))
        token = TOKENS[rng.integers(len(TOKENS))]
        text = [text[:at] + token + text[at:], text[:at] + text[end:], text[:at] + token + text[min(at + 3, end) :]][
            rng.integers(3)
        ]
    return text


def mutated_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    some = bytearray(content)
    kind = rng.integers(4)
    if kind == 0:
        return bytes(some[: rng.integers(len(some) + 1)])
    # Headers are at the ends of a file as a rule.
    places = [rng.integers(len(some)), rng.integers(min(200, len(some))), -1 - rng.integers(min(200, len(some)))]
    for _ in range(rng.integers(1, 6)):
        at = int(places[rng.integers(3)]) + int(rng.integers(-3, 4))
        if -len(some) <= at < len(some):
            some[at] = [rng.integers(256), 0, 255, some[at] ^ 1 << int(rng.integers(8))][rng.integers(4)]
    return bytes(some)


def mutated_archive(path: Path, to: Path, rng: np.random.Generator) -> None:
    """A copy whose container is whole, and one of whose members is not; or the other way round."""
    if rng.integers(2):
        to.write_bytes(mutated_bytes(path.read_bytes(), rng))
        return
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        chosen = rng.integers(len(old.namelist()))
        for index, name in enumerate(old.namelist()):
            content = old.read(name)
            if index == chosen:
                if name.endswith(".json") and rng.integers(2):
                    content = mutated_text(content.decode(), rng).encode(errors="replace")
                else:
                    content = mutated_bytes(content, rng)
            new.writestr(name, content)


class Inputs:
    """Small valid files, and for each kind a call on a mutation of one."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rng = np.random.default_rng(0)
        pixels = self.rng.integers(0, 256, (24, 20, 3), np.uint8)
        inputs = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(2, 3, activation="relu")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
        zoo.save(model, folder / "a.keras")
        self.converted = zoo.convolutionalize(model)
        self.config = load_config("nin_digits").to_yaml()
        np.savez(folder / "a.npz", x_train=pixels[None], names=np.array(["a", "b"]))
        np.save(folder / "a.npy", pixels)
        Image.fromarray(pixels).save(folder / "a.png")
        tifffile.imwrite(folder / "a.tif", pixels, tile=(16, 16), compression="zlib")
        zarr.create_array(str(folder / "a.zarr"), data=pixels, chunks=(16, 16, 3), overwrite=True)
        Image.fromarray(pixels[..., 0] // 128).save(folder / "mask.png")
        (folder / "labels.json").write_text(
            '{"images": [{"id": 1, "file_name": "a.png", "height": 24, "width": 20}], '
            '"categories": [{"id": 2, "name": "b"}], '
            '"annotations": [{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]}]}',
            encoding="utf-8",
        )
        (folder / "labels.geojson").write_text(
            '[{"type": "Feature", "geometry": {"type": "Point", "coordinates": [3, 4.5]}, "properties": '
            '{"classification": {"name": "b"}}}]',
            encoding="utf-8",
        )
        (folder / "labels.xml").write_text(
            "<annotation><size><width>20</width><height>24</height></size><object><name>b</name><bndbox><xmin>1</xmin>"
            "<ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox></object></annotation>",
            encoding="utf-8",
        )
        (folder / "boxes.csv").write_text("x,y,width,height\n1,2,8,8\n3,4,9,8\n", encoding="utf-8")
        (folder / "boxes.json").write_text('[{"x": 1, "y": 2, "width": 8, "height": 8}]', encoding="utf-8")

    def _changed(self, name: str) -> Path:
        to = self.folder / f"changed-{name}"
        to.write_bytes(mutated_bytes((self.folder / name).read_bytes(), self.rng))
        return to

    def override(self) -> None:
        load_config("nin_digits", [mutated_text(OVERRIDES[self.rng.integers(len(OVERRIDES))], self.rng)])

    def yaml(self) -> None:
        to = self.folder / "changed.yaml"
        to.write_text(mutated_text(self.config, self.rng), encoding="utf-8", errors="replace")
        load_config(to)

    def classes(self) -> None:
        class_list([mutated_text("benign", self.rng) for _ in range(3)], "here")

    def keras(self) -> None:
        mutated_archive(self.folder / "a.keras", self.folder / "changed.keras", self.rng)
        zoo.load(self.folder / "changed.keras")

    def npz(self) -> None:
        mutated_archive(self.folder / "a.npz", self.folder / "changed.npz", self.rng)
        read_arrays(self.folder / "changed.npz", "data")

    def npy(self) -> None:
        zoo.scan(self.converted, self._changed("a.npy"))

    def png(self) -> None:
        read_image(self._changed("a.png"))

    def tiff(self) -> None:
        zoo.scan(self.converted, self._changed("a.tif"))

    def mask(self) -> None:
        zoo.scan(self.converted, self.folder / "a.npy", mask=self._changed("a.png"))

    def zarr(self) -> None:
        file = self.folder / "a.zarr" / "zarr.json"
        text = file.read_bytes()
        file.write_bytes(mutated_bytes(text, self.rng))
        try:
            zoo.scan(self.converted, self.folder / "a.zarr")
        finally:
            file.write_bytes(text)

    def boxes(self) -> None:
        from zoo.scanning.boxes import read_boxes

        name = ["boxes.csv", "boxes.json"][self.rng.integers(2)]
        read_boxes(self._changed(name))

    def labels(self) -> None:
        name = ["boxes.csv", "labels.json", "labels.geojson", "labels.xml", "mask.png"][self.rng.integers(5)]
        changed = self._changed(name)
        if name not in ("labels.xml", "mask.png"):
            read_labels(changed, self.folder, ["a.png"])
            return
        folder = self.folder / name.partition(".")[0]
        folder.mkdir(exist_ok=True)
        changed.replace(folder / name)
        read_labels(folder, self.folder, [name])


OURS = ("override", "yaml", "classes", "keras", "npz")
# Of the readers of pictures, masks, boxes and labels, by their public names.
PICTURES = ("npy", "png", "tiff", "zarr", "mask", "boxes", "labels")


def faults(inputs: Inputs, name: str, count: int) -> list[str]:
    """What `count` mutations of a kind did that they must not; the same ones every time."""
    call, found = getattr(inputs, name), []
    inputs.rng = np.random.default_rng(0)
    process = psutil.Process()
    for index in range(count):
        before = process.memory_info().rss
        what = ""
        try:
            with watched():
                call()
        except InputError as error:
            if len(str(error)) > 500 or not str(error).isprintable():
                what = f"message {str(error)!r}"
        except Hang:
            what = f"no answer within {SECONDS} s"
        except Exception as error:
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        if not what and process.memory_info().rss - before > MEMORY:
            what = "memory"
        if what:
            found.append(f"{name} {index}: {what}")
    return found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return Inputs(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", OURS)
def test_some_mutations_are_taken_or_refused(inputs, kind):
    assert not faults(inputs, kind, 20)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*OURS, *PICTURES])
def test_many_mutations_are_taken_or_refused(inputs, kind):
    """ZOO_FUZZ inputs a kind, a thousand if it is not set: more than 10,000 in all."""
    found = faults(inputs, kind, int(os.environ.get("ZOO_FUZZ", "1000")))
    assert not found, f"{len(found)} faults: " + "\n".join(found[:20])
