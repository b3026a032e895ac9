"""Megabytes of what each distribution installs, with all that it requires, as they lie in this environment.

    python benchmarks/installed_size.py

The files of the packages are counted that are installed here, without compiled Python, and of this package its source.
"""

import argparse
import importlib.metadata
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from record import ROOT, add_option, report

# Of each project, its folder and the extras that are counted.
CASES = [(".", ""), ("packaging/scan", "onnx"), ("packaging/scan", "openvino")]


def required(names: list[str]) -> set[str]:
    """Packages with all that they require, by their normalised names."""
    found: set[str] = set()
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name not in found:
            found.add(name)
            wanted = map(Requirement, importlib.metadata.requires(name) or [])
            names += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def size(files: list[Path]) -> int:
    """The bytes of files, without compiled Python."""
    return sum(each.stat().st_size for each in files if each.suffix != ".pyc" and each.is_file())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_option(parser)
    options, rows = parser.parse_args(), []
    own = size([*(ROOT / "zoo").rglob("*"), *(ROOT / "configs").rglob("*")])
    for folder, extra in CASES:
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        asked = [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else [])]
        packages = required([Requirement(each).name for each in asked])
        distributions = map(importlib.metadata.distribution, packages)
        files = [Path(str(file.locate())) for each in distributions for file in each.files or []]
        name = f"{project['name']}[{extra}]" if extra else project["name"]
        rows.append({"installed": f"`{name}`", "packages": len(packages) + 1, "MB": round((own + size(files)) / 1e6)})
    report(rows, options.record, "bottleneck-zoo, bottleneck-zoo-scan", n=1)


if __name__ == "__main__":
    main()
