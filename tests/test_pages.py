"""The pages for users: their Python and their commands run as they stand, in order, in an empty folder.

Fences tell what is run: `sh` holds commands, `python` a script, and a `text` fence right after either holds what it
prints, with `...` for what differs from run to run. A `python` or `yaml` fence that begins with a file's name as a
comment is that file. Lines after `>>>` are run in one session a page. Other indented blocks are shown only, and so are
`bash` fences, whose commands need other machines, other data, or hours.
"""

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.cli import main
from zoo.config.data import DataConfig
from zoo.config.sources import SOURCES

DOCS = Path(__file__).resolve().parents[1] / "docs"
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Commands that are called otherwise as modules.
MODULES = {"saved_model_cli": "tensorflow.python.tools.saved_model_cli"}
# A folder that a page has got before, by its name there: the variable that names it here.
GOT = {"in_the_browser.md": ("package", "ZOO_ONNXRUNTIME_WEB")}
# Pages whose sessions other files of tests run.
OWN_TESTS = ("architecture.md", "equations.md")
ALIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(text):
    """The page's blocks that do something: (language, text, what it prints or None)."""
    found = [(each[1], each[2], each.start(), each.end()) for each in FENCE.finditer(text)]
    for index, (language, block, _, end) in enumerate(found):
        if language in ("python", "sh") or named_file(block):
            after = found[index + 1] if index + 1 < len(found) else None
            printed = after and after[0] == "text" and not text[end : after[2]].strip()
            yield language, block, after[1] if printed else None


def named_file(block):
    """The name of the file that the block is, by its first line."""
    named = re.match(r"# ([\w.]+\.(py|yaml))\n", block)
    return named and named[1]


def in_a_process(arguments, folder, environment):
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}: {done.stderr[-2000:]}"
    return done.stdout


def run_command(line, folder, capsys):
    """Run a command and give what it prints: `zoo` in this process, where the backend is loaded already."""
    words = shlex.split(line, comments=True)
    settings = dict(word.split("=", 1) for word in iter(lambda: words.pop(0) if "=" in words[0] else None, None))
    # This process holds more than what a scan may take.
    if words[0] != "zoo" or settings.keys() - {"PYTHONPATH"} or "--memory" in words:
        environment = {**os.environ, "PYTHONPATH": str(DOCS.parent), **settings}
        return in_a_process(["-m", MODULES.get(words[0], words[0]), *words[1:]], folder, environment)
    with pytest.raises(SystemExit) as stopped:
        main(words[1:])
    captured = capsys.readouterr()
    assert not stopped.value.code, f"{line}: {captured.err}"
    return captured.out


def run_python(text, folder, capsys):
    """Run a script and give what it prints; one that asks what is imported has a process of its own."""
    if "sys.modules" in text:
        return in_a_process(["-c", text], folder, {**os.environ, "PYTHONPATH": str(DOCS.parent)})
    exec(compile(text, "a block of the page", "exec"), {"__name__": "__main__"})
    return capsys.readouterr().out


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore:.* states no pixel size:UserWarning")
@pytest.mark.parametrize("page", [name for name, text in TEXTS.items() if list(blocks(text))])
def test_every_block_of_a_page_runs_and_prints_what_the_page_says(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    if page in GOT:
        name, variable = GOT[page]
        if variable not in os.environ:
            pytest.skip(f"{variable} names no folder {name!r}, which the page has got")
        (tmp_path / name).symlink_to(Path(os.environ[variable]).resolve())
    for language, text, printed in blocks(TEXTS[page]):
        if name := named_file(text):
            (tmp_path / name).write_text(text, encoding="utf-8")
            continue
        if language == "python":
            said = run_python(text, tmp_path, capsys)
        else:
            said = "".join(run_command(line, tmp_path, capsys) for line in text.replace("\\\n", "").splitlines())
        alike = printed is None or doctest.OutputChecker().check_output(printed, said, ALIKE)
        assert alike, f"{text}\nprints\n{said}\ninstead of\n{printed}"


@pytest.mark.extended
@pytest.mark.parametrize("page", [name for name, text in TEXTS.items() if "    >>> " in text and name not in OWN_TESTS])
def test_every_line_of_a_session_is_true(page):
    result = doctest.testfile(str(DOCS / page), module_relative=False, encoding="utf-8", optionflags=ALIKE)
    assert result.failed == 0


def test_the_pages_name_every_key_of_the_data():
    text = TEXTS["own_images.md"]
    table = text.partition("## Every key of `data`")[2]
    listed = re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in table.splitlines() if row.startswith("| `")))
    assert sorted(listed) == sorted(DataConfig.model_fields)
    scenes = "".join(TEXTS[page] for page in ("own_scenes.md", "correcting.md"))
    assert {key for key in SOURCES["scenes"].keys if f"`data.{key}" not in scenes} == set()
