"""How often a padded net's grid cells answer as their crops do, and its twin as the classifier: on noise and on photos.

    python benchmarks/agreement.py CELLS [--run RUN]

CELLS is a folder of photos of blood cells, `images/*.jpg` with boxes in `annotations/*.xml` (Pascal VOC), such as BCCD.
Crops of 48 pixels, at half the photos' size, around red and white cells, platelets and places between them train a
small net, with padding and without; every sixth photo is kept for the test. `--run`: a run directory that is measured
on its own canvas and test images too.
"""

import argparse
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from record import add_option, report

SIDE, TEST, PHOTOS = 48, 6, 20
CLASSES = {"background": 0, "RBC": 1, "WBC": 2, "Platelets": 3}
CONFIG = """
data: {{name: npz, dir: {data}, validation: 0.1}}
model:
  family: nin
  num_classes: 4
  image_size: [48, 48]
  channels: 3
  normalization: batch
  padding: {padding}
  mlpconvs:
    - {{kernel: 5, filters: [24, 24], pool: {{kind: max, size: 2, stride: 2}}}}
    - {{kernel: 3, filters: [48, 48], pool: {{kind: max, size: 2, stride: 2}}}}
    - {{kernel: 3, filters: [64, 64], pool: {{kind: max, size: 2, stride: 2}}}}
    - {{kernel: 3, filters: [64, 64]}}
train:
  epochs: 10
  batch_size: 64
  optimizer: {{name: adamw, learning_rate: 3.0e-3, weight_decay: 0.02}}
  warmup: 0.05
canvas: {{count: 20, size: [400, 400]}}
"""


def places(annotation: Path, shape: tuple[int, int], rng: np.random.Generator) -> list[tuple[int, float, float]]:
    """Class and centre of what is cut out of a photo: all but the most usual class, five of that, four of none."""
    objects = []
    for each in ElementTree.parse(annotation).getroot().iter("object"):
        box = [float(each.find("bndbox").find(side).text) / 2 for side in ("ymin", "xmin", "ymax", "xmax")]
        objects.append((CLASSES[each.find("name").text], (box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
    usual = [each for each in objects if each[0] == 1]
    chosen = [each for each in objects if each[0] != 1]
    chosen += [usual[index] for index in rng.permutation(len(usual))[:5]]
    for _ in range(60):
        y, x = (rng.uniform(SIDE / 2, side - SIDE / 2) for side in shape)
        if all(np.hypot(y - top, x - left) > (18 if kind == 3 else 26) for kind, top, left in objects):
            chosen.append((0, y, x))
        if sum(kind == 0 for kind, _, _ in chosen) == 4:
            break
    return chosen


def crops_of(folder: Path, output: Path) -> list[tuple[str, np.ndarray]]:
    """Write the crops as an .npz data set; the first photos of the test, with their names."""
    rng, photos = np.random.default_rng(0), []
    parts: dict[str, tuple[list, list]] = {"train": ([], []), "test": ([], [])}
    for number, annotation in enumerate(sorted((folder / "annotations").glob("*.xml"))):
        file = folder / "images" / f"{annotation.stem}.jpg"
        with Image.open(file) as photo:
            pixels = np.asarray(
                photo.convert("RGB").resize((photo.width // 2, photo.height // 2), Image.Resampling.BOX)
            )
        training = number % TEST > 0
        if not training and len(photos) < PHOTOS:
            photos.append((file.name, pixels))
        wide = np.pad(pixels, ((SIDE, SIDE), (SIDE, SIDE), (0, 0)), mode="reflect")
        images, labels = parts["train" if training else "test"]
        for kind, y, x in places(annotation, pixels.shape[:2], rng):
            for _ in range(4 if training and kind > 1 else 1):
                shift = rng.integers(-4, 5, 2) if training else (0, 0)
                top, left = (int(at - SIDE / 2) + SIDE + by for at, by in zip((y, x), shift, strict=True))
                images.append(wide[top : top + SIDE, left : left + SIDE])
                labels.append(kind)
    arrays = {f"{name}_{part}": each for part, pair in parts.items() for name, each in zip("xy", pair, strict=True)}
    np.savez(output, class_names=list(CLASSES), **{name: np.asarray(each) for name, each in arrays.items()})
    return photos


def main() -> None:
    """Train, measure, and print the table."""
    import zoo
    from zoo.convert.conversion import convert
    from zoo.convert.verification import verified
    from zoo.network.network import Network
    from zoo.trial_images import opened

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", type=Path)
    parser.add_argument("--run", type=Path)
    add_option(parser)
    options = parser.parse_args()

    table = []

    def measure(name: str, run: Path, what: str, images: list | None) -> None:
        source = Network.of(zoo.load(run))
        found = verified(source, convert(source), images)
        row = {"net": name, "measured on": what, "same answer as the crop, %": 100 * found.crops_argmax_agreement}
        twin = None if found.padding_free else verified(source, convert(source, padding="valid"), images)
        row["twin: same answer as the classifier, %"] = twin and 100 * twin.classifier_argmax_agreement
        table.append(row)

    def measure_run(name: str, run: Path) -> None:
        measure(name, run, "noise", None)
        with opened(convert(Network.of(zoo.load(run))).network, (), run) as images:
            measure(name, run, "canvas and test images", images)

    with tempfile.TemporaryDirectory() as folder:
        photos = crops_of(options.cells, Path(folder) / "cells.npz")
        for padding in ("same", "valid"):
            path = Path(folder) / f"{padding}.yaml"
            path.write_text(CONFIG.format(data=Path(folder) / "cells.npz", padding=padding), encoding="utf-8")
            zoo.run(zoo.load_config(path), Path(folder) / padding)
            name = f"blood cells, `padding: {padding}`"
            if padding == "same":
                measure_run(name, Path(folder) / padding)
            measure(name, Path(folder) / padding, f"{PHOTOS} photos", photos)
    if options.run:
        config = zoo.load_config(options.run / "config.yaml")
        measure_run(f"`{config.name}`, {config.train.epochs} epochs", options.run)
    report(table, options.record, "benchmarks/agreement.py", 1)


if __name__ == "__main__":
    main()
