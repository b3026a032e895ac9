"""What is known of the processor: where Linux tells of it, its model and its instructions."""

import contextlib
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def model() -> str:
    """Its model, where Linux names it, else its architecture."""
    return _told("model name") or platform.processor() or platform.machine()


def flags(file: Path = CPUINFO) -> set[str]:
    """The instructions that it has beyond the usual ones, by Linux's names; none where nothing tells of them."""
    return set(_told("flags", "Features", file=file).split())


def _told(*names: str, file: Path = CPUINFO) -> str:
    """What stands behind the first of these names: x86's, and 64-bit Arm's."""
    with contextlib.suppress(OSError):
        for line in file.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in names:
                return value.strip()
    return ""
