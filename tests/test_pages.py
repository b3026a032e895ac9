"""The pages for users: their Python and their commands run as they stand, in order, in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.config.data import DataConfig
from zoo.config.sources import SOURCES

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = [
    *("own_images.md", "own_scenes.md", "correcting.md", "counting.md"),
    *("pretrained.md", "class_activation.md", "exporting.md", "serving.md", "bioimageio.md"),
    *("scan_without_keras.md", "in_the_browser.md"),
]
# A folder that a page has got before, by its name there: the variable that names it here.
GOT = {"in_the_browser.md": ("package", "ZOO_ONNXRUNTIME_WEB")}
# Commands that are called otherwise as modules.
MODULES = {"saved_model_cli": "tensorflow.python.tools.saved_model_cli"}


def blocks(page):
    """The page's blocks of Python and of commands: (language, text)."""
    return re.findall(
        r"^```(python|sh)\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def as_module(line):
    name, *arguments = shlex.split(line)
    return [MODULES.get(name, name), *arguments]


@pytest.mark.extended
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs(page, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(DOCS.parent)}
    if page in GOT:
        name, variable = GOT[page]
        if variable not in os.environ:
            pytest.skip(f"{variable} names no folder {name!r}, which the page has got")
        (tmp_path / name).symlink_to(Path(os.environ[variable]).resolve())
    for language, text in blocks(page):
        lines = [["-c", text]] if language == "python" else [["-m", *as_module(line)] for line in text.splitlines()]
        for line in lines:
            done = subprocess.run(
                [sys.executable, *line], cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{line}: {done.stderr[-2000:]}"


def test_the_pages_name_every_key_of_the_data():
    text = (DOCS / "own_images.md").read_text(encoding="utf-8")
    table = text.partition("## Every key of `data`")[2]
    listed = re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in table.splitlines() if row.startswith("| `")))
    assert sorted(listed) == sorted(DataConfig.model_fields)
    scenes = "".join((DOCS / page).read_text(encoding="utf-8") for page in ("own_scenes.md", "correcting.md"))
    assert {key for key in SOURCES["scenes"].keys if f"`data.{key}" not in scenes} == set()
