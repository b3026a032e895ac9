"""Measuring again by one command: what fits, what fails, and that nothing measured is lost."""

import sys
from pathlib import Path

import pytest

from zoo import processor

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import again  # noqa: E402
import record  # noqa: E402


def steps(*named):
    """Steps that write a record, but that called `fails`, which leaves a line; and `breaks`, which ends everything."""

    class Step(again.Step):
        def run(self, work, records):
            if self.name == "breaks":
                raise KeyboardInterrupt
            if self.name == "fails":
                return "no torch here"
            (records / f"{self.name}.json").write_text(self.name)

    return tuple(Step(name, minutes, "", low=name == "low") for name, minutes in named)


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "docs" / "records").mkdir(parents=True)
    (tmp_path / "docs" / "tables.py").write_text("import pathlib, sys; pathlib.Path('tables').write_text(sys.argv[1])")
    monkeypatch.setattr(again, "ROOT", tmp_path)
    return tmp_path


def main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["again.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        again.main()
    return stop.value.code


def test_what_fits_is_measured_and_what_fails_is_named(root, monkeypatch, capsys):
    monkeypatch.setattr(again, "STEPS", steps(("one", 1), ("fails", 1), ("long", 90), ("two", 1)))
    assert main(monkeypatch, "--minutes", "5") == 1
    said = capsys.readouterr().out
    assert "one: measured" in said and "fails: no torch here" in said and "long: left out, about 90 minutes" in said
    assert sorted(path.name for path in (root / "docs" / "records").iterdir()) == ["one.json", "two.json"]
    assert (root / "tables").read_text() == "--write"
    assert main(monkeypatch, "two") == 0
    assert capsys.readouterr().out.startswith("two: measured")


@pytest.mark.parametrize("has", [set(), {"avx512_vnni"}, {"avx512_bf16", "amx_int8"}])
def test_what_a_processor_cannot_do_fast_is_left_out(root, monkeypatch, capsys, has):
    monkeypatch.setattr(again, "STEPS", steps(("low", 1), ("one", 1)))
    monkeypatch.setattr(processor, "flags", lambda: has)
    assert main(monkeypatch) == 0
    said = capsys.readouterr().out
    assert "one: measured" in said
    assert ("low: measured" if len(has) == 2 else "low: left out, this processor has no instructions") in said


def test_records_survive_an_interruption(root, monkeypatch):
    monkeypatch.setattr(again, "STEPS", steps(("one", 1), ("breaks", 1)))
    monkeypatch.setattr(sys, "argv", ["again.py"])
    with pytest.raises(KeyboardInterrupt):
        again.main()
    assert (root / "docs" / "records" / "one.json").is_file() and not (root / "tables").exists()


def test_an_unknown_step_is_refused(monkeypatch, capsys):
    assert main(monkeypatch, "speed") == 2
    assert "steps: received speed; accepted: installed_size, dense_training" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["missing.py", "again.py nothing"])
def test_a_command_that_fails_is_said_in_its_last_line(words, tmp_path):
    wrong = again.Step("one", 1, words).run(tmp_path, tmp_path)
    assert "No such file" in wrong or "unrecognized arguments" in wrong


def test_every_step_is_a_record_of_the_pages():
    names = {path.stem for path in (ROOT / "docs" / "records").iterdir()}
    for step in again.STEPS:
        made = {name for name in names if name == step.name or name.startswith(f"{step.name}_")}
        commands = {record.read(name).command for name in made}
        script = f"zoo train {step.words}" if step.trains else f"python benchmarks/{step.words.split()[0]}"
        assert made and any(script in command or step.trains for command in commands)
