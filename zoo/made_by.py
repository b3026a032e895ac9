"""Which command made a file, and from what: written into the file, where its format has room for text, and read there.

The place is each format's own: the comment of a zip archive (.keras, .npz, and an empty one after a .tflite), a text
chunk of a PNG, the Software tag of a TIFF, a second array in a .npy file, the attributes of a Zarr array, a key of a
JSON object, a comment at the end of HTML, XML and Markdown, an entry of ONNX's `metadata_props`, a file in a
SavedModel's `assets.extra`. Lists of boxes (.csv, .json) have none.
"""

import contextlib
import hashlib
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import InputError

_KEY = "made_by"
# Bytes at the end of a file among which a comment is looked for.
_TAIL = 2**16
# Files of more bytes are known by size and time, not by their content.
_HASHED = 2**28
_FOLDER_FILE = Path("assets.extra") / "made_by.json"
_ZARR = "zarr.json"


@dataclass(frozen=True)
class MadeBy:
    """A command with what it read and was asked for, each by a key of its content (see `key_of`).

    `beside`: keys of files that belong to this one, by their names; they do not distinguish one maker from another.
    """

    command: str
    inputs: Mapping[str, Any]
    beside: Mapping[str, str] = field(default_factory=dict, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        beside = {"beside": dict(self.beside)} if self.beside else {}
        return {"command": self.command, "inputs": dict(self.inputs), **beside}

    @classmethod
    def of(cls, record: Any) -> "MadeBy | None":
        """The maker that a record names, None where it is no such record."""
        if not isinstance(record, dict) or not isinstance(record.get("inputs"), dict):
            return None
        return cls(str(record.get("command")), record["inputs"], record.get("beside") or {})


def key_of(path: str | Path) -> str:
    """What a file or folder holds, as text that changes with it.

    A hash of a file's content, of its size and time where it has more than 256 MiB; of the names, sizes and times of
    all files in a folder. The name of the file or folder itself is not part of it.

    Raises:
        InputError: for a device or a pipe.
    """
    path, digest = Path(path), hashlib.blake2b(digest_size=16)
    if path.exists() and not (path.is_dir() or path.is_file()):
        raise InputError(f"{path}: is a device or a pipe; accepted: a file or a folder")
    if path.is_dir():
        for file in sorted(each for each in path.rglob("*") if each.is_file()):
            stat = file.stat()
            digest.update(f"{file.relative_to(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "replace"))
    elif (stat := path.stat()).st_size > _HASHED:
        digest.update(f"{stat.st_size}\0{stat.st_mtime_ns}".encode())
    else:
        with path.open("rb") as content:
            while block := content.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def sign(path: Path, made_by: MadeBy) -> None:
    """Write into a file, a Zarr array or a SavedModel which command made it; nothing where its format has no room."""
    if path.is_dir() and (path / _ZARR).is_file():
        metadata = json.loads((path / _ZARR).read_text(encoding="utf-8"))
        metadata.setdefault("attributes", {})[_KEY] = made_by.to_dict()
        (path / _ZARR).write_text(json_text(metadata), encoding="utf-8")
    elif path.is_dir():
        (path / _FOLDER_FILE).parent.mkdir(exist_ok=True)
        (path / _FOLDER_FILE).write_text(_text(made_by), encoding="utf-8")
    elif kind := _kind(path):
        _FORMATS[kind][0](path, _text(made_by))


def maker_of(path: Path) -> MadeBy | None:
    """Which command made a file, a Zarr array or a SavedModel; None where it names none."""
    # What is there may be anything, damaged too.
    with contextlib.suppress(Exception):
        if path.is_dir() and (path / _ZARR).is_file():
            return MadeBy.of(json.loads((path / _ZARR).read_text(encoding="utf-8"))["attributes"][_KEY])
        if path.is_dir():
            return MadeBy.of(json.loads((path / _FOLDER_FILE).read_text(encoding="utf-8")))
        if kind := _kind(path):
            return MadeBy.of(json.loads(_FORMATS[kind][1](path)))
    return None


def can_be_signed(path: Path) -> bool:
    """Whether the format of the file that lies there has room for a maker."""
    return path.is_dir() or _kind(path) is not None


def json_text(content: Any) -> str:
    """What a JSON file of ours holds; `zoo.files.write_json` writes it."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _text(made_by: MadeBy) -> str:
    return json.dumps(made_by.to_dict(), sort_keys=True)


def _kind(path: Path) -> str | None:
    with path.open("rb") as file:
        start = file.read(64)
    if path.name.endswith(".onnx"):
        return "onnx"
    if path.name.endswith(".md"):
        return "markup"
    if start.startswith((b"PK\3\4", b"PK\5\6")) or start[4:8] == b"TFL3":
        return "zip"
    if start.startswith(b"\x89PNG"):
        return "png"
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    first = start.lstrip()[:1]
    return {b"{": "json", b"<": "markup"}.get(first)


def _sign_zip(path: Path, text: str) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = text.encode()


def _read_zip(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.comment


def _sign_png(path: Path, text: str) -> None:
    """Put a tEXt chunk before the last one, IEND, which is always 12 bytes."""
    content = b"tEXt" + _KEY.encode() + b"\0" + text.encode()
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    with path.open("r+b") as file:
        file.seek(-12, os.SEEK_END)
        end = file.read()
        file.seek(-12, os.SEEK_END)
        file.write(chunk + end)


def _read_png(path: Path) -> str:
    return _after(_tail(path), f"tEXt{_KEY}\0")


def _sign_npy(path: Path, text: str) -> None:
    """Append a second array, as `numpy.save` does to an open file; `numpy.load` reads and maps the first."""
    with path.open("ab") as file:
        np.save(file, np.array(f"{_KEY}: {text}".encode()))


def _sign_tiff(path: Path, text: str) -> None:
    import tifffile

    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags["Software"].overwrite(f"{_KEY}: {text}")


def _read_tiff(path: Path) -> str:
    import tifffile

    with tifffile.TiffFile(path) as file:
        return file.pages.first.tags["Software"].value.removeprefix(f"{_KEY}: ")


def _sign_json(path: Path, text: str) -> None:
    content = {**json.loads(path.read_text(encoding="utf-8")), _KEY: json.loads(text)}
    path.write_text(json_text(content), encoding="utf-8")


def _read_json(path: Path) -> str:
    return json.dumps(json.loads(path.read_text(encoding="utf-8")).get(_KEY))


def _sign_markup(path: Path, text: str) -> None:
    # A comment must not hold two hyphens in a row.
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n<!-- {_KEY}: {text.replace('--', '-' + chr(92) + 'u002d')} -->\n")


def _read_markup(path: Path) -> str:
    return _after(_tail(path), f"<!-- {_KEY}: ")


def _sign_onnx(path: Path, text: str) -> None:
    """Append an entry of `metadata_props`: what comes after a protocol buffer is merged into it."""
    import onnx

    entry = onnx.StringStringEntryProto(key=_KEY, value=text)
    with path.open("ab") as file:
        file.write(onnx.ModelProto(metadata_props=[entry]).SerializeToString())


def _read_npy(path: Path) -> str:
    return _after(_tail(path), f"{_KEY}: ")


def _read_onnx(path: Path) -> str:
    return _after(_tail(path), _KEY)


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
        return file.read().decode("latin-1")


def _after(tail: str, mark: str) -> str:
    """The first JSON object after the last `mark`; it is all ASCII."""
    begin = tail.index("{", tail.rindex(mark))
    return tail[begin : json.JSONDecoder().raw_decode(tail, begin)[1]]


_FORMATS: dict[str, tuple[Callable[[Path, str], None], Callable[[Path], str | bytes]]] = {
    "zip": (_sign_zip, _read_zip),
    "png": (_sign_png, _read_png),
    "npy": (_sign_npy, _read_npy),
    "tiff": (_sign_tiff, _read_tiff),
    "json": (_sign_json, _read_json),
    "markup": (_sign_markup, _read_markup),
    "onnx": (_sign_onnx, _read_onnx),
}
