"""What is known of the processor: where Linux tells of it, its model and its instructions."""

import contextlib
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# What Linux calls the instructions of x86 that add four products of bytes in 32 bits.
_VNNI = {"avx_vnni", "avx512_vnni", "amx_int8"}


def model() -> str:
    """Its model, where Linux names it, else its architecture."""
    return _told("model name") or platform.processor() or platform.machine()


def flags(file: Path = CPUINFO) -> set[str]:
    """The instructions that it has beyond the usual ones, by Linux's names; none where nothing tells of them."""
    return set(_told("flags", "Features", file=file).split())


def saturates() -> bool | None:
    """Whether it adds two products of bytes in 16 bits, which two of 8 bits overflow: x86 without VNNI.

    None where nothing tells what it has, as without Linux.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    has = flags()
    return _VNNI.isdisjoint(has) if has else None


def _told(*names: str, file: Path = CPUINFO) -> str:
    """What stands behind the first of these names: x86's, and 64-bit Arm's."""
    with contextlib.suppress(OSError):
        for line in file.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in names:
                return value.strip()
    return ""
