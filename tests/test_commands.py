"""One voice: what every command has alike, tested by walking over all of them."""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import click
import numpy as np
import pytest
from conftest import command as call
from PIL import Image

from zoo import progress
from zoo.cli import zoo as group
from zoo.cli.command import Command, Option, named
from zoo.cli.ship import ship
from zoo.progress import at_work, never_silent, note, results_alone, say, track, working

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {**group.commands, "ship": ship}


def options(command):
    return [each for each in command.params if isinstance(each, click.Option)]


def examples(command):
    """The command lines of a command's help, without what stands before its name."""
    first, *others = command.epilog.removeprefix("Example: ").split("; or ")
    return [shlex.split(each) for each in (first, *others)]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_every_commands_help_parses(name):
    command = COMMANDS[name]
    assert isinstance(command, Command) and command.epilog.startswith("Example: ") and command.help
    start = ["python", "-m", "zoo.cli.ship"] if name == "ship" else ["zoo", name]
    for words in examples(command):
        assert words[: len(start)] == start
        # Wrong names of options, missing ones and arguments, and options without effect are errors here.
        command.make_context(name, words[len(start) :])
    assert all(each.help and each.help[-1] not in " :" for each in options(command) if not each.hidden)


def meaning(option):
    """What an option's help says first, before what this command makes of it."""
    text = re.sub(r"^With [^:]*: ", "", option.help)
    return re.split(r"[.:;]", text)[0].lower()


def test_an_option_of_one_name_means_one_thing():
    known = defaultdict(set)
    for command in COMMANDS.values():
        for each in options(command):
            if not each.hidden:
                known[max(each.opts, key=len)].add((meaning(each), each.is_flag, tuple(each.opts)))
    assert {name: meanings for name, meanings in known.items() if len(meanings) > 1} == {}
    assert {"--output", "--overwrite", "--pixel-size", "--json", "--version"} <= {*known}


def test_what_an_option_depends_on_is_there():
    for command in COMMANDS.values():
        for each in (each for each in options(command) if isinstance(each, Option)):
            for other in (*each.goes_with, *each.apart_from):
                assert named(command, other.partition(" ")[0]) is not each


def value_of(option):
    if option.is_flag:
        return []
    if isinstance(option.type, click.Tuple):
        return ["8", "8"]
    if isinstance(option.type, click.Choice):
        return [option.type.choices[0]]
    return {"ROW,COL": ["1,2"], "integer": ["1"], "float": ["0.5"], "float range": ["0.5"]}.get(option.type.name, ["x"])


def needed(command):
    """Words for the arguments and options that a command needs."""
    words = []
    for each in command.params:
        if isinstance(each, click.Option):
            words += [each.opts[-1], *value_of(each)] if each.required else []
        elif each.required or each.name == "arguments":
            words.append("nin_digits")
    return words


DEPENDENT = [
    (name, each, other)
    for name, command in COMMANDS.items()
    for each in options(command)
    if isinstance(each, Option)
    for other in (*each.goes_with, *each.apart_from)
]


@pytest.mark.parametrize(
    ("name", "option", "other"), DEPENDENT, ids=[f"{name} {each.opts[-1]} {other}" for name, each, other in DEPENDENT]
)
def test_an_option_without_effect_is_refused_before_any_work(capsys, monkeypatch, tmp_path, name, option, other):
    monkeypatch.chdir(tmp_path)
    command = COMMANDS[name]
    words = [*needed(command), option.opts[-1], *value_of(option)]
    if other in option.apart_from:
        words += [other, *value_of(named(command, other))]
        text = "accepted: one of the two"
    else:
        text = "has no effect without"
    with pytest.raises(click.UsageError, match=text):
        command.make_context(name, [*words])
    if name != "ship":
        code, out, err = call(capsys, name, *words)
        assert (code, out, err.count("\n")) == (2, "", 1) and text in err
    assert not list(tmp_path.iterdir())


def test_the_version_is_said_by_every_command(capsys):
    for name in ("", *group.commands):
        code, out, err = call(capsys, *([name] if name else []), "--version")
        assert code == 0 and not err and re.fullmatch(r"zoo \S+\n", out)
    done = subprocess.run([sys.executable, ROOT / "train.py", "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"train.py \S+\n", done.stdout)


@pytest.fixture(scope="module")
def run(tmp_path_factory, model_file):
    """A finished run, of one epoch, and an image to work on."""
    from conftest import train_digits

    folder = tmp_path_factory.mktemp("run")
    train_digits(folder / "run", "train.epochs=1")
    pixels = np.random.default_rng(0).integers(0, 256, (30, 24)).astype(np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(folder / name)
    (folder / "boxes.csv").write_text("top,left,bottom,right\n0,0,8,8\n4,4,12,12\n")
    return folder


# What a command is given, and the keys of its results; RUN is a folder with a run and an image.
WITH_JSON = {
    "list": (["nin_digits"], {"models"}),
    "list --compare": (["resnet20*"], {"models"}),
    "list --pretrained": (["nin_cifar10*"], {"models"}),
    "describe": (["nin_digits"], {"params", "rows"}),
    "train": (["nin_digits", "train.epochs=1", "train.checkpoint_every_steps=3", "--workdir", "RUN/run"], {"accuracy"}),
    "evaluate": (["RUN/run", "-o", "e.json"], {"accuracy", "per_class_accuracy", "files"}),
    "evaluate --against RUN/run": (["RUN/run"], {"new", "old", "regressions"}),
    "predict": (["RUN/run", "RUN/a.png", "--explain", "maps"], {"images"}),
    "convert": (["RUN/run", "-o", "fcn.keras"], {"max_error_at_training_size", "geometry", "files"}),
    "convert --pooling global": (["RUN/run", "-o", "all.keras"], {"error_at_training_size", "files"}),
    "tile": (["RUN/a.png", "-o", "a.tif"], {"files"}),
    "scan": (["RUN/run", "RUN/a.png", "-o", "one", "--answer", "average-probabilities"], {"images", "failed"}),
    "scan --no-check": (["RUN/run", "RUN/a.png", "RUN/b.png", "-o", "two"], {"images", "failed", "counts", "files"}),
    "regions": (["RUN/run", "RUN/a.png", "RUN/boxes.csv", "-o", "boxes.csv"], {"boxes", "notes", "files"}),
    "export": (["RUN/run", "-o", "model.onnx", "--format", "onnx"], {"verified", "files"}),
    "card": (["RUN/run", "-o", "card"], {"files"}),
    "plot": (["RUN/run"], {"files"}),
    "plot --cell 1,2": (["RUN/run", "--image", "RUN/a.png"], {"cell", "boxes", "files"}),
}


def paths_in(result):
    """All files that a result names, at any depth."""
    if isinstance(result, dict):
        return [*map(Path, result.get("files", ())), *(path for each in result.values() for path in paths_in(each))]
    return [path for each in result for path in paths_in(each)] if isinstance(result, list) else []


def test_every_command_has_results_as_json():
    assert {line.partition(" ")[0] for line in WITH_JSON} == {*group.commands}


@pytest.mark.parametrize("line", ["list", "list --compare", "list --pretrained", "describe"])
def test_json_of_the_catalogue_is_alone_on_the_standard_output(capfd, monkeypatch, tmp_path, line):
    test_json_is_alone_on_the_standard_output(capfd, monkeypatch, tmp_path, tmp_path, line)


@pytest.mark.extended
def test_json_of_a_scan_and_of_predictions_is_alone_on_the_standard_output(capfd, monkeypatch, tmp_path, model_file):
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "run").mkdir()
    shutil.copy(model_file, tmp_path / "run" / "model.keras")
    monkeypatch.setitem(WITH_JSON, "predict", (["RUN/run", "RUN/a.png"], {"images"}))
    for line in ("tile", "predict", "scan"):
        test_json_is_alone_on_the_standard_output(capfd, monkeypatch, tmp_path, tmp_path, line)


@pytest.mark.extended
@pytest.mark.parametrize("line", WITH_JSON)
def test_json_is_alone_on_the_standard_output(capfd, monkeypatch, tmp_path, run, line):
    monkeypatch.chdir(tmp_path)
    more, keys = WITH_JSON[line]
    words = [each.replace("RUN", str(run)) for each in (*line.split(), *more)]
    code, out, err = call(capfd, *words, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert keys <= {*result}
    assert all(path.exists() for path in paths_in(result))
    assert bool(paths_in(result)) == bool({"-o", "--explain"} & {*words} or "files" in keys)
    # And as text, on the standard output too, where nothing else is.
    code, out, err = call(capfd, *words, *(["--overwrite"] if "-o" in words else []))
    own = [line for line in err.splitlines() if not re.fullmatch(r"zoo \w+: .*, \d+ s", line)]
    assert code == 0 and out and not out.startswith("{") and not own


@pytest.mark.extended
def test_the_results_of_a_scan_tell_of_images_that_failed(capfd, tmp_path, run):
    (tmp_path / "bad.png").write_bytes(b"no image")
    words = ("scan", run / "run", run / "a.png", tmp_path / "bad.png", "-o", tmp_path / "out", "--json")
    code, out, err = call(capfd, *words)
    result = json.loads(out)
    assert code == 2 and "1 of 2 images could not be scanned" in err
    assert [each["image"] for each in result["images"]] == [str(run / "a.png")]
    assert sum(result["images"][0]["cells_won"].values()) == np.prod(result["images"][0]["grid_shape"])
    assert "bad.png" in result["failed"][0]["reason"]


@pytest.mark.extended
def test_a_regression_is_told_as_json_and_by_the_exit_code(capfd, monkeypatch, run, tmp_path):
    from zoo import comparison

    turns = iter([False, True])
    monkeypatch.setattr(comparison, "_right", lambda *_: np.full(360, next(turns)))
    code, out, _ = call(capfd, "evaluate", run / "run", "--against", run / "run", "--json")
    assert code == 1 and json.loads(out)["regressions"][0] == "all images -100.00%"


def test_an_error_leaves_the_standard_output_empty(capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capfd, "predict", "gone.keras", "x.png", "--json")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_a_command_that_gives_no_results_is_a_fault():
    silent = Command("silent", callback=lambda: None)
    with pytest.raises(RuntimeError, match="gave no results for --json"):
        silent.main(["--json"], standalone_mode=False)


def test_results_alone_sends_the_rest_to_the_standard_error(capfd):
    with results_alone():
        say("a table")
        note("a note")
        print("of a library")
        os.write(1, b"of C++\n")
    say("after")
    out, err = capfd.readouterr()
    assert out == "after\n" and err.splitlines() == ["a note", "of a library", "of C++"]


@contextlib.contextmanager
def telling(period):
    """Work that a line is told of each `period` seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "PERIOD", period)
        with never_silent("zoo work"):
            yield


def test_nothing_but_a_line_each_period_is_shown_where_there_is_no_terminal(capfd):
    with telling(0.05):
        time.sleep(0.12)
        with working("reading"):
            time.sleep(0.12)
            for _ in track(range(40), "scanning"):
                time.sleep(0.005)
        with at_work("training", lambda: "step 3 of 7"):
            time.sleep(0.12)
    out, err = capfd.readouterr()
    told = [re.sub(r"\d s$", "N s", re.sub(r"\d+ of 40", "N of 40", line)) for line in err.splitlines()]
    assert not out and [*dict.fromkeys(told)] == [
        "zoo work: at work, N s",
        "zoo work: reading, N s",
        "zoo work: scanning, N of 40, N s",
        "zoo work: training, step 3 of 7, N s",
    ]
    with never_silent("zoo work"):
        assert [*track(range(3), "scanning")] == [0, 1, 2]
    assert capfd.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_has_one_bar_and_no_lines_beside_it(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with telling(0.05), working("outside"):
        for _ in track(range(3), "inside"):
            time.sleep(0.05)
    assert "outside" in terminal.getvalue() and not {"inside", "zoo work:"} & {*terminal.getvalue().split()}


def test_lines_are_told_while_the_error_stream_is_silenced(capfd):
    from zoo.progress import silent_stderr

    with telling(0.03), silent_stderr():
        os.write(2, b"noise\n")
        time.sleep(0.1)
    err = capfd.readouterr().err
    assert "noise" not in err and "zoo work: at work, 0 s\n" in err


def test_the_shell_asks_the_command_for_completions():
    environment = {**os.environ, "_ZOO_COMPLETE": "bash_complete", "COMP_WORDS": "zoo sc", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "zoo"], env=environment, capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "plain,scan\n" and 'eval "$(_ZOO_COMPLETE=bash_source zoo)"' in group.help


def completed(line):
    """What the shell is offered for the last word of a line."""
    from click.shell_completion import ShellComplete

    *words, last = line.split(" ")[1:]
    found = ShellComplete(group, {}, "zoo", "_ZOO_COMPLETE").get_completions(words, last)
    return [each.value for each in found if each.type == "plain"]


def test_commands_options_names_and_values_are_completed():
    assert completed("zoo sc") == ["scan"] and {"train", "tile"} <= {*completed("zoo t")}
    assert completed("zoo scan --no") == ["--no-check"]
    assert completed("zoo train nin_dig") == ["nin_digits", "nin_digits_tuned"]
    assert "resnet50_v2" in completed("zoo describe resnet50")
    assert "nin_cifar10_bn" in completed("zoo convert nin_cifar")
    assert completed("zoo export m.keras --format on") == ["onnx"]
    assert completed("zoo scan m.keras i.png --border re") == ["reflect"]


@pytest.mark.extended
def test_no_noise_of_libraries_whatever_the_level(run, tmp_path):
    """A user's process that asks TensorFlow for all of its log; our own messages stay."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"}
    code = (
        "import sys; from zoo.cli import main\n"
        "for line in sys.stdin.read().splitlines():\n"
        "    try: main(line.split())\n"
        "    except SystemExit as stop: assert not stop.code, line\n"
        "print('our own', file=sys.stderr)"
    )
    lines = (
        "train nin_digits train.epochs=1 --workdir again",
        f"scan {run / 'run'} {run / 'a.png'} {run / 'b.png'} -o out",
        f"export {run / 'run'} -o model.onnx --format onnx",
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input="\n".join(lines),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    own = re.compile(r"zoo (train|scan|export): .* \d+ s|our own|")
    assert [line for line in done.stderr.splitlines() if not own.fullmatch(line)] == []
    assert done.stderr.endswith("our own\n")
