"""Measure again what an idle machine of two cores measures in an hour, and make the tables of the pages from it.

    pip install -e '.[dev,benchmarks]' && pip install monai --no-deps
    python benchmarks/again.py [STEP...] [--minutes 60]

The steps of `STEPS` run one after the other, as long as the next one's minutes still fit; one that fails is named with
its last line, and the others go on. Those that time bfloat16 or int8 are left out where the processor has no
instructions for them. Records are written beside the checkout and moved into docs/records/ when the last one is there,
so that all of them are of one commit; then `docs/tables.py --write` makes the tables. What takes longer (CIFAR-10,
counting, every way to run a net) has its command in its own record or in docs/not_run.md.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from record import ROOT, of_runs, write


@dataclass(frozen=True)
class Step:
    """One command: a benchmark of this folder, or a training, of whose runs the record is made.

    `words`: what follows `python benchmarks/`, or `zoo train` where `trains`, in a folder for what is made on the way,
    where NAME is a training's run directory. `minutes`: on two cores of an Intel Xeon with AMX. `low`: whether it times
    bfloat16 or int8. A benchmark of several nets writes NAME_NET.json, any other NAME.json.
    """

    name: str
    minutes: float
    words: str
    trains: bool = False
    low: bool = False

    def run(self, work: Path, records: Path) -> str | None:
        """Write its records; what went wrong, or None. What it prints goes to a file of `work`."""
        words = shlex.split(self.words)
        runs, record = work / self.name, records / f"{self.name}.json"
        if self.trains:
            command = [sys.executable, "-m", "zoo", "train", *words, "--workdir", self.name]
        else:
            command = [sys.executable, str(ROOT / "benchmarks" / words[0]), *words[1:], "--record", str(record)]
        printed = work / f"{self.name}.txt"
        with printed.open("w") as file:
            code = subprocess.run(command, cwd=work, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        if code:
            lines = printed.read_text(errors="replace").strip().splitlines()
            return lines[-1] if lines else f"ended with {code}"
        if self.trains:
            write(of_runs(sorted(runs.glob("seed-*")) or [runs], f"zoo train {self.words}"), record)
        return None


STEPS = (
    Step("installed_size", 0.5, "installed_size.py"),
    Step("dense_training", 0.5, "dense_training.py --rounds 3 --steps 3"),
    Step("nin_digits", 1.5, "nin_digits --seeds 0-2", trains=True),
    Step("resnet_digits", 3, "resnet_digits --seeds 0-2", trains=True),
    Step(
        "resnet_digits_plain",
        2,
        "resnet_digits --seeds 0-2 train.ema=null train.augment.randaugment=null train.augment.mixup=0 "
        "train.augment.cutmix=0 model.stochastic_depth=0 train.label_smoothing=0 train.accumulate=1",
        trains=True,
    ),
    Step("nin_mnist_bn", 5, "nin_mnist_bn", trains=True),
    Step("nin_mnist_bn_valid", 3, "nin_mnist_bn model.padding=valid", trains=True),
    Step("nin_digits_tuned", 0.5, "nin_digits_tuned train.weights=nin_mnist_bn", trains=True),
    Step("nin_digits_untuned", 0.5, "nin_digits_tuned train.weights=null train.freeze=null", trains=True),
    Step("twins", 1.5, "twins.py nin_mnist_bn --valid nin_mnist_bn_valid"),
    Step("sliding", 2, "sliding.py --rounds 5"),
    Step("one_pass", 11, "one_pass.py --rounds 3", low=True),
    Step("channels", 2, "channels.py", low=True),
    Step("freezing", 3, "freezing.py --rounds 3"),
    Step("training", 7, "training.py --rounds 5 --steps 4", low=True),
    Step(
        "per_megapixel",
        4,
        "per_megapixel.py --megapixels 1 4 16 400 --folder . --engine openvino --precision bfloat16",
        low=True,
    ),
    Step("int8_speed", 5, "int8.py --speed", low=True),
    Step("without_keras", 5, "without_keras.py"),
    Step("overlap", 6, "overlap.py", low=True),
)


def main() -> None:
    """Run the steps, move their records and make the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(step.name for step in STEPS)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"default: {names}")
    parser.add_argument("--minutes", type=float, default=60, help="how long it may take (default: 60)")
    options = parser.parse_args()
    if unknown := set(options.steps) - {step.name for step in STEPS}:
        parser.error(f"steps: received {', '.join(sorted(unknown))}; accepted: {names}")
    from zoo.training.precision import resolve

    has_low = resolve("auto") == "bfloat16"
    begin, failed = time.monotonic(), False
    with tempfile.TemporaryDirectory() as folder:
        work, records = Path(folder), Path(folder) / "records"
        records.mkdir()
        try:
            for step in STEPS:
                if options.steps and step.name not in options.steps:
                    continue
                started = time.monotonic()
                if (started - begin) / 60 + step.minutes > options.minutes:
                    print(f"{step.name}: left out, about {step.minutes:g} minutes", flush=True)
                    continue
                if step.low and not has_low:
                    print(f"{step.name}: left out, this processor has no instructions for bfloat16", flush=True)
                    continue
                wrong = step.run(work, records)
                failed |= wrong is not None
                minutes = (time.monotonic() - started) / 60
                print(f"{step.name}: {wrong or 'measured'}, {minutes:.1f} minutes", flush=True)
        finally:
            for record in records.glob("*.json"):
                shutil.move(record, ROOT / "docs" / "records" / record.name)
    subprocess.run([sys.executable, "docs/tables.py", "--write"], cwd=ROOT, check=True)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
