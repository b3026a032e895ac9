"""The pages as a site and as plain Markdown: it builds without a warning, links lead somewhere, commands exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from zoo.cli import zoo as group

ROOT = Path(__file__).resolve().parents[1]
FILES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = [*FILES, *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"\$? *(?:[A-Z_]+=\S+ )*zoo ([^`]+)")


def lines_of(page):
    """The lines of a page, each with what it is in: the fence's language, "indented" or "prose"."""
    fence = None
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fence = line[3:] or "none" if fence is None else None
        else:
            yield fence or ("indented" if line.startswith("    ") else "prose"), line


def anchors(page):
    """What a code host makes of the page's headings."""
    headings = [line.lstrip("# ") for kind, line in lines_of(page) if kind == "prose" and line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page):
    prose = re.sub(r"`[^`]*`", "", "\n".join(line for kind, line in lines_of(page) if kind == "prose"))
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in link]
    for link in links:
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.is_file(), link
        assert not heading or heading in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_shows_has_these_options(page):
    lines = [line.strip() for kind, line in lines_of(page) if kind in ("sh", "bash", "indented")]
    for words in (shlex.split(found[1], comments=True) for line in lines if (found := COMMAND.fullmatch(line))):
        name, *arguments = words
        if name in group.commands:
            group.commands[name].make_context(name, arguments)
        else:
            assert words == ["--help"] or "..." in words, words


def test_every_page_is_in_the_table_of_contents():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = {name for tree in re.findall(r"```{toctree}\n(.*?)```", index, re.DOTALL) for name in tree.split("\n")}
    assert {page.stem for page in PAGES if page.parent.name == "docs"} - {"index"} == {
        name for name in listed if name and not name.startswith(":")
    }


@pytest.mark.extended
def test_the_site_builds_without_a_warning_and_has_every_command_and_public_name(tmp_path):
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(ROOT / "docs"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "command_line.html").read_text(encoding="utf-8")
    assert all(f'id="zoo-{name}"' in commands for name in group.commands)
    names = (tmp_path / "python_api.html").read_text(encoding="utf-8")
    assert all(f'id="zoo.{name}"' in names for name in zoo.__all__)
