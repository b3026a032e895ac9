"""Every figure of README and docs has a record, and the pages' tables are what the records give."""

import datetime
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "docs"), str(ROOT / "benchmarks")]

import record  # noqa: E402
import tables  # noqa: E402

NAMES = sorted(path.stem for path in (ROOT / "docs" / "records").iterdir())
FROZEN = ROOT / "tests" / "frozen" / "run"


@pytest.mark.parametrize("name", NAMES)
def test_a_record_says_what_was_run_where_and_when(name):
    found = record.read(name)
    assert found.config and found.command and found.hardware and found.versions and found.seeds
    titles = [list(row) for row in found.rows]
    assert all(each == titles[0] for each in titles)
    assert found.commit or found.note.startswith("before records")
    for row in found.rows:
        accuracies = row.get("test accuracy, %")
        assert not isinstance(accuracies, list) or len(accuracies) == len(found.seeds)


def test_a_key_more_or_a_row_less_is_no_record():
    about = json.loads((ROOT / "docs" / "records" / f"{NAMES[0]}.json").read_text())
    for change in ({"color": 1}, {"rows": []}, {"n": 0}, {"date": "soon"}, {"commit": "latest"}):
        with pytest.raises(ValidationError):
            record.Record.model_validate(about | change)


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_the_pages_tables_are_those_of_the_records(page):
    """`python docs/tables.py --write` brings them up to date."""
    text = page.read_text(encoding="utf-8")
    assert tables.made(text) == text


def test_every_record_is_shown_and_every_table_stands_in_one_page(monkeypatch):
    text = "".join(page.read_text(encoding="utf-8") for page in tables.PAGES)
    assert sorted(re.findall(r"<!-- table: (\w+) -->", text)) == sorted(tables.TABLES)
    assert text.count("<!-- end -->") == len(tables.TABLES)
    shown, read = set(), record.read
    monkeypatch.setattr(tables, "read", lambda name: shown.add(name) or read(name))
    for each in tables.TABLES.values():
        each.rows()
    assert shown == set(NAMES)


def test_under_a_table_stand_the_machines_and_days_of_its_records():
    both = tables.Table(lambda: [{"a": 1}], ("sliding", "int8"))
    first, second = record.read("sliding"), record.read("int8")
    assert first.hardware != second.hardware
    under = f"*Measured on {first.hardware}, {first.date}; {second.hardware}, {second.date}.*"
    assert both.text().endswith(f" |\n\n{under}")
    twice = tables.Table(both.rows, ("sliding", "sliding")).text()
    assert twice.endswith(f"\n\n*Measured on {first.hardware}, {first.date}.*")
    on_their_own = [name for name, each in tables.TABLES.items() if not each.records]
    assert on_their_own == ["few_results", "results", "pretrained", "pretrained_data"]
    for name in on_their_own[:3]:
        assert all(re.search(r"\d{4}-\d\d-\d\d$", row["on"]) for row in tables.TABLES[name].rows())


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_no_measured_spread_stands_outside_the_tables(page):
    prose = tables.MARKED.sub("", page.read_text(encoding="utf-8"))
    assert not re.findall(r"\d ± \d|\d \(\d[\d.,]* to \d", prose)


def test_a_changed_record_changes_its_page(monkeypatch):
    page = ROOT / "docs" / "training.md"
    text, read = page.read_text(encoding="utf-8"), record.read

    def better(name):
        found = read(name)
        return found.model_copy(update={"rows": [found.rows[0] | {"test accuracy, %": [100.0, 100.0, 100.0]}]})

    assert "99.17 ± 0.48" in text
    monkeypatch.setattr(tables, "read", lambda name: better(name) if name == "resnet_digits" else read(name))
    assert "every part at once | 100 ± 0" in tables.made(text)


@pytest.mark.parametrize("name", [name for name in NAMES if "trained on" in record.read(name).rows[0]])
def test_a_configs_header_has_the_accuracies_of_its_record(name):
    found = record.read(name)
    header = (ROOT / "configs" / f"{found.config.split()[0]}.yaml").read_text(encoding="utf-8")
    (row,) = found.rows
    accuracy = tables.training(found)["test accuracy, %"].partition(" ")[0].rstrip(",")
    # Of what is found in whole images, the header has the F1 of every class instead.
    shown = [f"{value:.3f}" for key, values in row.items() if key.startswith("F1 of ") for value in values]
    assert all(each in header for each in shown or [accuracy])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (62001, "62,001"),
        (0.5790, "0.579"),
        (12345.6, "12,346"),
        (2e-7, "2e-7"),
        ([99.7222, 100.0], "99.72, 100"),
        (record.Spread(median=0.08, least=0.076, largest=0.1), "0.080 (0.076 to 0.100)"),
        (record.Deviation(mean=13.0, deviation=1.25), "13.00 ± 1.25"),
        ("6×6", "6×6"),
    ],
)
def test_a_cell(value, shown):
    assert record.shown(value) == shown


def test_spread_and_deviation_by_hand():
    assert record.spread([3, 1, 2.0004]) == record.Spread(median=2.0, least=1, largest=3)
    assert record.deviation([1, 2, 3]) == record.Deviation(mean=2, deviation=1)
    assert record.deviation([12.345]) == 12.3
    # The mean has the decimals of its deviation, neither more, which are not known, nor fewer.
    assert record.deviation([88.02, 88.08, 88.035]) == record.Deviation(mean=88.045, deviation=0.031)
    assert record.deviation([0.4, 0.9, 0.36]) == record.Deviation(mean=0.55, deviation=0.3)
    assert record.deviation([7.3333, 7.3333]) == record.Deviation(mean=7.33, deviation=0)


def test_a_benchmark_writes_its_record(monkeypatch, capsys, tmp_path):
    path = tmp_path / "new.json"
    words = ["elsewhere/one_pass.py", "--case", "--rounds", "2", "--record", str(path)]
    monkeypatch.setattr(sys, "argv", words)
    rows = [{"model": "a", "one pass, s": record.spread([1.0, 2.0])}]
    record.report(rows, None, "a", 2)
    assert not path.exists()
    record.report(rows, path, "a", 2)
    found = record.Record.model_validate_json(path.read_bytes())
    assert found.command == "python benchmarks/one_pass.py --rounds 2" and found.rows == rows
    assert found.n == 2 and found.seconds > 0 and "cores of" in found.hardware and "keras" in found.versions
    assert capsys.readouterr().out.count("| a | 1.5 (1.0 to 2.0) |") == 2


def test_run_directories_become_a_record(monkeypatch, tmp_path):
    path, run = tmp_path / "tiny.json", tmp_path / "run"
    shutil.copytree(FROZEN, run)
    for file, time in (("environment.json", 1_000_000), ("evaluation.json", 1_000_090)):
        os.utime(run / file, (time, time))
    monkeypatch.setattr(sys, "argv", ["record.py", str(run), "-o", str(path), "--command", "zoo train tiny.yaml"])
    record.main()
    found = record.Record.model_validate_json(path.read_bytes())
    assert found.config == "tiny" and found.command == "zoo train tiny.yaml" and found.seeds == [0] and found.n == 360
    accuracy = json.loads((FROZEN / "evaluation.json").read_text())["accuracy"]
    assert found.rows[0]["test accuracy, %"] == [pytest.approx(100 * accuracy, abs=1e-4)]
    row = tables.training(found)
    assert row["test images"] == 360 and row["time"] == "90 s" and found.date == datetime.date(1970, 1, 12)


def test_a_record_has_the_overrides_and_the_time_of_all_runs(tmp_path):
    folders = [tmp_path / "seed-0", tmp_path / "seed-1"]
    for folder, ended in zip(folders, ("00:01:40", "00:00:50"), strict=True):
        shutil.copytree(FROZEN, folder)
        environment = json.loads((folder / "environment.json").read_text())
        environment |= {"began": "2026-01-02T00:00:00+00:00", "ended": f"2026-01-02T{ended}+00:00"}
        (folder / "environment.json").write_text(json.dumps(environment))
    command = "KERAS_BACKEND=jax zoo train tiny data.dir=my model.padding=valid 'train.epochs=3' --seeds 0-1"
    found = record.of_runs(folders, command)
    assert found.config == "tiny model.padding=valid train.epochs=3" and found.seconds == 150
    assert found.date == datetime.date(2026, 1, 2) and found.hardware == "2 cores of AMD EPYC"


@pytest.mark.parametrize(
    ("protocol", "told"),
    [
        (
            "1,293 training images, 144 more held out for validation by seed 0; test split used once",
            "1,293, 144 held out",
        ),
        ("60 training images, 12 more, of whole specimens, held out for validation by seed 1; used", "60, 12 held out"),
        ("50,000 training images, none held out; test split used once", "50,000, none held out"),
        ("5,646 training crops of scenes; whole images", "5,646 training crops of scenes; whole images"),
    ],
)
def test_what_a_run_was_trained_on_in_few_words(protocol, told):
    assert record._trained_on(protocol) == told


def test_every_benchmark_can_write_its_record():
    for path in (ROOT / "benchmarks").glob("*.py"):
        text = path.read_text()
        is_command = "def main(" in text and path.stem not in ("record", "again")
        assert not is_command or ("add_option(parser)" in text and "report(" in text), path


def test_a_record_names_the_instructions_of_its_processor(tmp_path):
    file = tmp_path / "cpuinfo"
    assert record.instructions(file) == []
    file.write_text("processor\t: 0\nflags\t\t: fpu avx512_vnni amx_tile amx_int8\n\nflags\t\t: avx_vnni\n")
    assert record.instructions(file) == ["AVX-512 VNNI", "AMX int8"]
