"""Where a field lies in a file of protocol buffers, for which their library would need the file's schema.

A message is a row of fields: a key, which is the field's number and its kind, and the value
(https://protobuf.dev/programming-guides/encoding/).
"""

from collections.abc import Iterator

# Kinds of values: a whole number of one or more bytes, eight bytes, bytes with their length before them, four bytes.
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5

Range = tuple[int, int]


def inside(data: bytes | bytearray, message: Range, *path: int) -> Range:
    """Where a message lies in one that lies in another: the first field of each number, one inside the other.

    Raises:
        ValueError: where there is none.
    """
    for number in path:
        message = _first(data, message, number, _BYTES)
    return message


def varint(data: bytes | bytearray, message: Range, number: int) -> int:
    """Where a whole number below 128, which is a single byte, lies in a message.

    Raises:
        ValueError: where there is none, or it is larger.
    """
    start, end = _first(data, message, number, _VARINT)
    if end - start != 1:
        raise ValueError(f"field {number} has {end - start} bytes, and not 1")
    return start


def _first(data: bytes | bytearray, message: Range, number: int, kind: int) -> Range:
    for each, own_kind, place in _fields(data, message):
        if (each, own_kind) == (number, kind):
            return place
    raise ValueError(f"no field {number}")


def _fields(data: bytes | bytearray, message: Range) -> Iterator[tuple[int, int, Range]]:
    """The number, the kind and the place of every field of a message."""
    at, end = message
    while at < end:
        key, at = _number(data, at)
        number, kind = key >> 3, key & 7
        if kind == _BYTES:
            length, at = _number(data, at)
        elif kind == _VARINT:
            length = _number(data, at)[1] - at
        elif kind in (_EIGHT, _FOUR):
            length = 8 if kind == _EIGHT else 4
        else:
            raise ValueError(f"field {number} is of kind {kind}")
        yield number, kind, (at, at + length)
        at += length


def _number(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """A number of one or more bytes, seven bits in each, the lowest first; and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
