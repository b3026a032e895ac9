"""What is printed: one place escapes what a terminal must not take as its own, in any encoding."""

import io
import sys

from zoo.progress import aligned, say


def test_what_has_no_picture_is_escaped(capsys):
    say("a\x1b[31mred\x07 é\nsecond")
    assert capsys.readouterr().out == "a\\x1b[31mred\\x07 é\nsecond\n"


def test_an_ascii_stream_takes_every_text(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    say("Zürich, 血球")
    assert written.getvalue() == b"Z\\xfcrich, \\u8840\\u7403\n"


def test_columns_stand_below_each_other_numbers_to_the_right_and_nothing_is_cut():
    rows = [("class", "images", "note"), ("all", "1,000", "a" * 200), ("3", "7", ""), ("eel", "", "b")]
    assert aligned(rows).split("\n") == [
        "class  images  note",
        f"all     1,000  {'a' * 200}",
        "3           7",
        "eel            b",
    ]
