"""Seconds and memory of zoo.scan for each megapixel of a memory-mapped image, from small images to huge ones.

    python benchmarks/per_megapixel.py [--megapixels 1 4 16] [--model nin_cifar10_bn] [--rounds 3]
    python benchmarks/per_megapixel.py --megapixels 1 4 16 400 --folder /a/disk/with/2GB --engine openvino

Every scan runs in a process of its own, after one scan of a megapixel that is not counted, the sizes in turn, several
rounds; those above 64 megapixels once. The table gives the median, and the least and largest in brackets. `pixels read`
is how often the tiles read each pixel of the image: 1 would be no overlap, and it is what the ideal time, that of one
pass without seams, is to be multiplied by. The share in the last column is of the first size's seconds a megapixel.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from record import add_option, report, spread
from turns import case

_ONCE = 64


class Counted:
    """An image (H, W, C) read by slices that counts the `pixels` that are read."""

    pixels = 0

    def __init__(self, image: np.ndarray) -> None:
        """Wrap `image`."""
        self.image, self.shape, self.dtype, self.ndim = image, image.shape, image.dtype, image.ndim

    def __getitem__(self, where: tuple[slice, ...]) -> np.ndarray:
        """The pixels at `where`."""
        part = self.image[where]
        self.pixels += part.shape[0] * part.shape[1]
        return part


def write_noise(path: Path, side: int) -> None:
    """A square RGB image of noise, uint8, written strip by strip."""
    image = np.lib.format.open_memmap(path, "w+", np.uint8, (side, side, 3))
    generator = np.random.default_rng(0)
    for top in range(0, side, 512):
        strip = image[top : top + 512]
        strip[:] = generator.integers(0, 256, strip.shape, np.uint8)
    image.flush()


def measure(model_name: str, path: str, engine: str, precision: str | None) -> dict[str, float]:
    """Seconds of one scan, peak resident memory in MiB, how often a pixel was read, and the cells."""
    import zoo
    from zoo.large_images import scanner_of
    from zoo.scanning.options import Options
    from zoo.training import start

    start(0, True)
    scan = scanner_of(zoo.build(model_name), Options(engine=engine, precision=precision))
    scan(np.zeros((1024, 1024, 3), np.uint8))
    image = Counted(np.load(path, mmap_mode="r"))
    begin = time.perf_counter()
    scores = scan(image).scores
    seconds = time.perf_counter() - begin
    area = image.shape[0] * image.shape[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "memory": peak, "read": image.pixels / area, "cells": scores.shape[0] * scores.shape[1]}


def main() -> None:
    """Scan every size in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 4, 16])
    parser.add_argument("--model", default="nin_cifar10_bn")
    parser.add_argument("--engine", default="keras")
    parser.add_argument("--precision")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where the images are written, three bytes a pixel; they are deleted after")
    add_option(parser)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.model, options.case, options.engine, options.precision)))
        return
    words = ["--model", options.model, "--engine", options.engine]
    words += ["--precision", options.precision] if options.precision else []
    results: dict[float, list[dict[str, float]]] = {size: [] for size in options.megapixels}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for size in options.megapixels:
            write_noise(Path(folder, f"{size}.npy"), round((size * 1e6) ** 0.5))
        for index in range(options.rounds):
            for size in options.megapixels:
                if index and size > _ONCE:
                    continue
                results[size].append(case(__file__, str(Path(folder, f"{size}.npy")), *words))
    engine = f"{options.engine} {options.precision or ''}".strip()
    print(f"{options.model}, {engine}, {options.rounds} rounds, {len(os.sched_getaffinity(0))} processors\n")
    table = [
        {
            "megapixels": size,
            "cells": rows[0]["cells"],
            "seconds a megapixel": spread([row["seconds"] / size for row in rows]),
            "pixels read": round(rows[0]["read"], 2),
            "peak, MiB": round(max(row["memory"] for row in rows)),
        }
        for size, rows in results.items()
    ]
    report(table, options.record, options.model, options.rounds)


if __name__ == "__main__":
    main()
