"""Which parts of the package need Keras, and which way imports point."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import zoo

PACKAGE = Path(zoo.__file__).parent
# Each of these imports only from itself and those before it.
LAYERS = ("network", "convert", "engines", "scanning")


def test_scanning_and_the_network_s_algebra_import_no_keras():
    code = (
        "import importlib, pkgutil, sys, zoo.scanning\n"
        "for module in pkgutil.iter_modules(zoo.scanning.__path__):\n"
        "    importlib.import_module(f'zoo.scanning.{module.name}')\n"
        "assert 'zoo.scanning.scan' in sys.modules and 'zoo.network.finer' in sys.modules\n"
        "print([name for name in ('keras', 'tensorflow', 'jax', 'torch') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer):
    later = LAYERS[LAYERS.index(layer) + 1 :]
    for file in (PACKAGE / layer).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) and node.module else ""
            assert not module.startswith(("zoo.large_images", *(f"zoo.{each}" for each in later))), file.name
