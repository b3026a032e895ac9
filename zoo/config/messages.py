"""A failed validation as one line: the key, what is wrong, the value received."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from zoo.errors import quoted


def one_line(error: ValidationError, data: Any) -> str:
    """The first problem of a failed validation: key, what is wrong, value received."""
    key, text = key_and_text(error, data)
    return f"{key}: {text}" if key else text


def key_and_text(error: ValidationError, data: Any) -> tuple[str, str]:
    """The first problem's key, in dots from `data` down, and what is wrong there."""
    first, *others = error.errors(include_url=False)
    # Pydantic puts a union's tag into the location; only what the user wrote is a key.
    keys: list[str] = []
    node = data
    for part in first["loc"]:
        if isinstance(node, Mapping) and part in node or isinstance(node, list | tuple) and isinstance(part, int):
            keys.append(str(part))
            node = node[part]
        elif part == first["loc"][-1] and first["type"] == "missing":
            keys.append(str(part))
    text = first["msg"]
    if first["type"] == "missing":
        text = "this key is required"
    elif first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        tag = first["ctx"]["discriminator"].strip("'")
        keys.append(tag)
        received = node.get(tag) if isinstance(node, Mapping) else node
        accepted = first["ctx"].get("expected_tags", "see the shipped configs")
        text = f"received {quoted(received)}; accepted: {accepted}"
    elif first["type"] == "problem":
        keys += [first["ctx"]["key"]] if first["ctx"]["key"] else []
    else:
        text = f"{text[0].lower()}{text[1:]}, received {quoted(first['input'])}"
    more = f" (and {len(others)} more)" if others else ""
    return ".".join(keys), text + more
