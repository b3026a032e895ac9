"""Numbers of bytes as text, read and written."""

import math
import re

from zoo.errors import refuse

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_memory(memory: int | str) -> int:
    """A number of bytes, or text such as "2GiB" or "800 MB", as bytes.

    Raises:
        InputError: for anything else.
    """
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(memory), re.IGNORECASE)
    if isinstance(memory, bool) or not parts or parts[2].upper() not in _UNITS:
        refuse("memory", f"{memory!r}", "bytes, or text such as '2GiB' or '800MB'")
    return int(float(parts[1]) * _UNITS[parts[2].upper()])


def bytes_text(size: int, up: bool = False) -> str:
    """Bytes for people to read: rounded down, as of what fits, or `up`, as of what is needed."""
    unit, digits, name = (2**20, 0, "MiB") if size < 10 * 2**30 else (2**30, 1, "GiB")
    number = (math.ceil if up else math.floor)(size / unit * 10**digits) / 10**digits
    return f"{number:,.{digits}f} {name}"
