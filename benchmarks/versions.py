"""The tests on each Python, with the oldest and the newest releases of what the package depends on.

    pip install uv
    python benchmarks/versions.py [3.11:oldest 3.13:newest ...] [--tests tests/test_scan.py ...] [--record FILE]

For each, uv makes a fresh environment, which it throws away after: `oldest` has the lowest release that pyproject.toml
allows of each package that it names, `newest` the latest one of all. Then `pytest` runs, the default suite unless
`--tests` names something else. A Python that is not on this machine, and one for which a package has no files, has a
row that says so; the exit code is 1 where a test failed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from record import ROOT, add_option, report

CASES = ("3.11:oldest", "3.11:newest", "3.12:newest", "3.13:newest")
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
# Packages whose release is told.
TOLD = ("tensorflow", "keras", "numpy", "jax")


def case(text: str) -> tuple[str, str]:
    """A case of the command line: a Python and which releases."""
    python, _, releases = text.partition(":")
    if releases not in RESOLUTIONS:
        raise argparse.ArgumentTypeError(f"received {text!r}; accepted: such as {', '.join(CASES)}")
    return python, releases


def run(*command: str) -> subprocess.CompletedProcess:
    """A command in the checkout, of whose environment nothing leads elsewhere."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def measure(python: str, releases: str, tests: list[str]) -> tuple[dict[str, str], bool]:
    """The row of a case, and whether its tests passed."""
    row = {"Python": python, "releases": releases, **dict.fromkeys(TOLD, ""), "tests": ""}
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder, "environment", "Scripts" if os.name == "nt" else "bin", "python"))
        uv = ["uv", "--quiet", "--no-python-downloads"]
        made = run(*uv, "venv", "--python", python, str(Path(folder, "environment")))
        if made.returncode:
            return {**row, "tests": f"not run: no Python {python} on this machine"}, True
        install = ["pip", "install", "--python", program, "--resolution", RESOLUTIONS[releases], "--editable", ".[dev]"]
        installed = run(*uv, *install)
        if installed.returncode:
            print(installed.stderr, file=sys.stderr)
            return {**row, "tests": f"not run: {' '.join(installed.stderr.split())[:200]}"}, True
        code = "import sys, importlib.metadata as m; print(sys.version.split()[0], *map(m.version, sys.argv[1:]))"
        row |= dict(zip(("Python", *TOLD), run(program, "-c", code, *TOLD).stdout.split(), strict=True))
        tested = run(program, "-m", "pytest", "-q", *tests)
        lines = tested.stdout.strip().splitlines() or [f"ended with {tested.returncode}"]
        if tested.returncode:
            print(tested.stdout, tested.stderr, file=sys.stderr)
        return {**row, "tests": lines[-1].partition(" in ")[0].strip("= ")}, tested.returncode == 0


def main() -> None:
    """Run the cases, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", type=case, metavar="PYTHON:RELEASES", help=f"default: {' '.join(CASES)}")
    parser.add_argument("--tests", nargs="+", default=[], metavar="TEST", help="words for pytest")
    add_option(parser)
    options = parser.parse_args()
    if shutil.which("uv") is None:
        parser.error("needs uv; pip install uv")
    found = []
    for python, releases in options.cases or map(case, CASES):
        found.append(measure(python, releases, options.tests))
        print(f"{python}:{releases}: {found[-1][0]['tests']}", file=sys.stderr, flush=True)
    config = f"pytest {' '.join(options.tests)}" if options.tests else "pytest, the default suite"
    report([row for row, _ in found], options.record, config, n=1)
    raise SystemExit(not all(passed for _, passed in found))


if __name__ == "__main__":
    main()
