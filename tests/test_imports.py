"""Imports point one way: docs/architecture.md lists the package in order, and a module imports from above it alone."""

import ast
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def order():
    """The modules and packages of the page's list, from the top."""
    (block,) = re.findall(r"^```\n(errors\.py.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names = []
    for line in block.splitlines():
        names += re.findall(r"(\w+)(?:\.py|/)(?=\s|$)", re.split(r"\s{3,}|  (?=[A-Za-z`]+ [A-Za-z])", line)[0])
    return names


def modules():
    """Every module of the package with the modules of the package that it imports, inside functions too."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in (ROOT / "zoo").rglob("*.py")}
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    imported = {}
    for name, path in paths.items():
        imported[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported[name] |= {each.name for each in node.names} & set(paths)
            elif isinstance(node, ast.ImportFrom) and node.module in paths:
                inner = {f"{node.module}.{each.name}" for each in node.names}
                imported[name] |= (inner & set(paths)) or {node.module}
    return imported


def unit(name):
    return name.split(".")[1] if "." in name else ""


def test_the_page_lists_every_module_and_package_once():
    listed = order()
    there = {unit(name) for name in modules()} - {"", "__main__"}
    assert len(listed) == len(set(listed)) and set(listed) == there


def test_a_module_imports_only_from_those_above_it():
    places = {name: place for place, name in enumerate(order())}
    wrong = [
        (name, other)
        for name, others in modules().items()
        for other in others
        if unit(name) in places and unit(other) in places and places[unit(other)] > places[unit(name)]
    ]
    assert not wrong


def test_no_module_imports_itself_by_way_of_others():
    graph = {name: others - {name} for name, others in modules().items()}
    # A package's __init__ that gives names of its modules is imported with each of them, and is no use of its own.
    packages = {name for name in graph if any(other.startswith(f"{name}.") for other in graph)}
    TopologicalSorter({name: others - packages for name, others in graph.items()}).prepare()


def test_no_module_is_longer_than_400_lines():
    long = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "zoo").rglob("*.py")}
    assert not {name: lines for name, lines in long.items() if lines > 400}


@pytest.mark.parametrize("package", ["config", "models", "pictures", "scanning"])
def test_these_packages_load_no_backend(package):
    names = [name for name in modules() if name.startswith(f"zoo.{package}")]
    code = f"import sys, {', '.join(names)}; assert not {{'keras', 'tensorflow', 'jax'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(("asked", "given"), [(None, "1"), ("0", "0")])
def test_tensorflow_computes_with_onednn_on_every_processor_unless_it_is_told_not_to(asked, given):
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": asked or ""}
    if asked is None:
        del environment["TF_ENABLE_ONEDNN_OPTS"]
    code = "import os, zoo; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment, capture_output=True)
    assert done.stdout.decode().strip() == given
