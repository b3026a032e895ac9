"""Tables with a header that people and programs write: .csv files, by commas, semicolons or tabs."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from zoo.errors import InputError, quoted, refuse


class TableRow(NamedTuple):
    """A row of a table: its number, from 1, its values by column, and the text of all of it."""

    number: int
    values: dict[str, str]
    text: str


def table_lines(text: str) -> list[list[str]]:
    """The cells of each line of a table, the header first; empty lines are none. What separates is found in the header.

    Raises:
        csv.Error: where a quote is not closed, or followed by more.
    """
    first = next(filter(str.strip, text.splitlines()), "")
    separator = max(",;\t", key=first.count)
    # Some programs put a space after each separator, before a quote too.
    read = csv.reader(io.StringIO(text), delimiter=separator, strict=True, skipinitialspace=True)
    return [row for row in read if any(map(str.strip, row))]


def read_table(path: Path, name: str, columns: Sequence[str]) -> Iterator[TableRow]:
    """The rows of a .csv file that has at least the given columns, whose values have no spaces at their ends.

    Names of columns are compared without case, spaces, "_" and "-".

    Args:
        path: the file.
        name: what it is, for errors.
        columns: names as `plain` gives them.

    Raises:
        InputError: where it cannot be read or is broken, has not these columns, each once, or a row of another length.
    """
    try:
        lines = table_lines(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{name}: broken ({cut(str(error))})") from None
    header = [plain(each) for each in lines[0]] if lines else []
    if any(header.count(column) != 1 for column in columns):
        received = f"a first line {quoted(','.join(lines[0]) if lines else '')}"
        refuse(name, received, f"a header there, with the columns {','.join(columns)}, each once")
    for number, line in enumerate(lines[1:], start=1):
        row, text = [each.strip() for each in line], ",".join(line)
        # A separator at the end of each row is a spreadsheet's.
        if len(row) < len(header) or any(row[len(header) :]):
            refuse(f"{name}: row {number}", f"{quoted(text)}, {len(row)} values", f"{len(header)}, as in the header")
        yield TableRow(number, dict(zip(header, row, strict=False)), text)


def plain(name: str) -> str:
    """A column's name without case, spaces, "_" and "-"."""
    return re.sub(r"[\s_-]", "", name).casefold()


def cut(text: str) -> str:
    """A text on one short line."""
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:60]}..."
