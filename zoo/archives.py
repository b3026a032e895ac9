"""Zip archives (.keras, .npz) of unknown origin: what a member claims of its size is checked before it is read."""

import contextlib
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from psutil import virtual_memory

from zoo.errors import InputError, quoted

# What a damaged archive makes Python's zipfile raise: RuntimeError for an encrypted member, the rest for broken ones.
DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, ValueError, OSError)
# Bytes that are more than this, and packed in less than a hundredth, are no numbers that were measured or learned.
MODEST = 2**26
SHRINKS = 100
_MOST_MEMBERS = 100_000
_ENCRYPTED = 1


@contextlib.contextmanager
def opened(path: Path, what: str, kind: str) -> Iterator[zipfile.ZipFile]:
    """An archive, whose directory has been checked; errors within begin with `what`, and name the `kind` it is not.

    Raises:
        InputError: where it is no archive, is damaged, or has a member that is encrypted, or packed in a way that
            cannot be read in pieces.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in _members(archive):
                _check(member)
            yield archive
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    except DAMAGED as error:
        raise InputError(f"{what}: not a {kind} ({_cause(error)})") from None


def _cause(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > _MOST_MEMBERS:
        raise InputError(f"has {len(members):,} members; accepted: at most {_MOST_MEMBERS:,}")
    names: set[str] = set()
    for member in members:
        if member.filename in names:
            raise InputError(f"member {quoted(member.filename)} is there twice")
        names.add(member.filename)
    return members


def _check(member: zipfile.ZipInfo) -> None:
    name = quoted(member.filename)
    if member.flag_bits & _ENCRYPTED:
        raise InputError(f"member {name} is encrypted; accepted: plain ones")
    # The others cannot be unpacked in bounded pieces.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"member {name} is packed by method {member.compress_type}; accepted: stored or deflated")


def check_packing(archive: zipfile.ZipFile) -> None:
    """Check that no member claims to be far larger than its packed form, as no weights are.

    Raises:
        InputError: naming the member.
    """
    for member in archive.infolist():
        if member.file_size > max(MODEST, SHRINKS * member.compress_size):
            sizes = f"{member.file_size:,} bytes packed in {member.compress_size:,}"
            name = quoted(member.filename)
            raise InputError(f"member {name} claims {sizes}; accepted: at most {SHRINKS} times as many")


def read(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """The content of a member of at most `most` bytes.

    Raises:
        InputError: for a larger one, before it is read.
    """
    if name not in archive.namelist():
        raise InputError(f"has no member {quoted(name)}")
    member = archive.getinfo(name)
    if member.file_size > most:
        raise InputError(f"member {quoted(name)} has {member.file_size:,} bytes; accepted: at most {most:,}")
    return archive.read(member)


def read_arrays(path: Path, what: str, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, all or those of `names` that it has, none of them pickled.

    Raises:
        InputError: beginning with `what`, where the file cannot be read, or a header claims other than the file holds.
    """
    with opened(path, what, "readable .npz file") as archive:
        there = {name.removesuffix(".npy"): name for name in archive.namelist()}
        wanted = list(there) if names is None else [name for name in names if name in there]
        needed, free = sum(archive.getinfo(there[name]).file_size for name in wanted), virtual_memory().available
        if needed > free:
            raise InputError(f"its arrays have {needed:,} bytes; accepted: what the memory has room for, {free:,}")
        arrays = {}
        for name in wanted:
            with archive.open(there[name]) as file:
                arrays[name] = _array(file, archive.getinfo(there[name]).file_size, name)
        return arrays


def array_names(path: Path, what: str) -> list[str]:
    """The names of an .npz file's arrays."""
    with opened(path, what, "readable .npz file") as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def _array(file: IO[bytes], size: int, name: str) -> np.ndarray:
    """An array whose header claims as many bytes as the `size` of its file leaves for it."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise InputError(f"array {quoted(name)} is of .npy version {version}; accepted: plain arrays, 1.0 and 2.0")
    try:
        shape, _, dtype = readers[version](file)
    except Exception as error:  # a header is a piece of Python, which NumPy reads by parts of Python's own parser
        raise ValueError(f"array {name}: no header of an array ({_cause(error)})") from None
    left = size - file.tell()
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded: " + name)
    if not dtype.itemsize or math.prod(shape) * dtype.itemsize != left or min(shape, default=1) < 0:
        claim = f"claims to be {shape} of {dtype}, but holds {left:,} bytes"
        raise InputError(f"array {quoted(name)} {claim}; accepted: numbers or text, as many as its header claims")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)
