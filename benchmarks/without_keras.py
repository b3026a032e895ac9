"""Seconds to the first score and seconds a megapixel of `zoo scan`, by the Keras model and by its exported files.

    python benchmarks/without_keras.py [--model nin_mnist_valid] [--side 4000] [--rounds 3] [--by "ONNX Runtime" ...]

A shipped model is converted and exported as .onnx and .xml. Every scan is a process of its own, with --memory 1.5GiB,
the models in turn, several rounds. The first score is the end of the first tile of an image of 256 x 256 pixels, the
start of Python included; seconds a megapixel are those of all of a square image of noise without its first tile, and
the peak of memory is that of the process, pictures and all. The table gives the median, and the least and largest in
brackets.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from record import add_option, report, spread
from turns import case

# What computes, the model's file, and further words of the command.
CASES = {
    "Keras": ("fcn.keras",),
    "Keras model by OpenVINO": ("fcn.keras", "--engine", "openvino"),
    "ONNX Runtime": ("fcn.onnx",),
    "OpenVINO": ("fcn.xml",),
}


def measure(words: list[str]) -> dict[str, float]:
    """Run one `zoo scan` in this process: seconds to its first tile, seconds and cells of the others, peak in MiB."""
    from zoo.cli import main
    from zoo.scanning.store import Store

    written, write = [], Store.write

    def timed(self: Store, index: int, *arguments: object) -> None:
        write(self, index, *arguments)
        written.append(time.time())

    Store.write = timed
    try:
        main(["scan", *words, "--memory", "1.5GiB", "--no-check"])
    except SystemExit as stopped:
        assert not stopped.code, stopped.code
    # Not ru_maxrss, which begins with what the process held that started this one.
    peak = int(Path("/proc/self/status").read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]) / 1024
    first = written[0] - psutil.Process().create_time()
    return {"first": first, "share": 1 - 1 / len(written), "seconds": written[-1] - written[0], "peak": peak}


def write_models(name: str, folder: Path) -> None:
    """A shipped model, converted, as Keras saves it and in the formats whose runtimes scan."""
    import zoo

    fcn = zoo.convolutionalize(zoo.build(name, weights="pretrained"))
    zoo.save(fcn, folder / "fcn.keras")
    zoo.export(fcn, folder / "fcn.onnx", format="onnx")
    zoo.export(fcn, folder / "fcn.xml", format="openvino")


def main() -> None:
    """Scan a small and a large image by every model in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nin_mnist_valid")
    parser.add_argument("--side", type=int, default=4000, help="several tiles of it, a side of which is 2,048 at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--by", nargs="+", choices=CASES, default=list(CASES), help="what computes")
    add_option(parser)
    parser.add_argument("--case", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case)))
        return
    firsts: dict[str, list[float]] = {name: [] for name in options.by}
    scans: dict[str, list[dict[str, float]]] = {name: [] for name in options.by}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_models(options.model, folder)
        for name, side in (("small", 256), ("large", options.side)):
            pixels = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (side, side))
            for seed, rows in enumerate(np.array_split(pixels, -(-side // 1000))):
                rows[:] = np.random.default_rng(seed).integers(0, 256, rows.shape, np.uint8)
            pixels.flush()

        def run(image: str, words: tuple[str, ...]) -> dict[str, float]:
            return case(__file__, *words, f"{image}.npy", "-o", "out", "--overwrite", folder=folder)

        for _ in range(options.rounds):
            for name in options.by:
                model, *more = CASES[name]
                firsts[name].append(run("small", (model, *more))["first"])
                scans[name].append(run("large", (model, *more)))
    megapixels = options.side**2 / 1e6
    table = [
        {
            "computed by": name,
            "first score, s": spread(firsts[name]),
            "seconds a megapixel": spread([each["seconds"] / each["share"] / megapixels for each in scans[name]]),
            "peak, MiB": round(max(each["peak"] for each in scans[name])),
        }
        for name in options.by
    ]
    report(table, options.record, options.model, options.rounds)


if __name__ == "__main__":
    main()
