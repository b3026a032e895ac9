"""What Linux says of the processor; nothing, on other systems."""

import contextlib
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def model() -> str:
    """Its model's name, or ""."""
    return _told("model name")


def flags(file: Path = CPUINFO) -> set[str]:
    """The instructions that it has beyond the usual ones, by Linux's names."""
    return set(_told("flags", "Features", file=file).split())


def _told(*names: str, file: Path = CPUINFO) -> str:
    """What stands behind the first of these names: x86's, and 64-bit Arm's."""
    with contextlib.suppress(OSError):
        for line in file.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in names:
                return value.strip()
    return ""
