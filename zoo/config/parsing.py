"""YAML as configs use it: bounded before it is built, every alias a copy, a key given twice an error."""

import copy
import re
from pathlib import Path
from typing import Any

import yaml

from zoo.errors import InputError

# A config is a page of text; what is larger is something else. An alias counts as all that it stands for.
_LARGEST_FILE = 2**18
_MOST_VALUES = 10_000
_DEEPEST = 30
_LONGEST_NUMBER = 100


class _Loader(yaml.SafeLoader):
    """YAML in which a key given twice is an error, 1e-3 is a number, and an alias is a copy."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        # An override of one of the places must not reach the other.
        return copy.deepcopy(node) if alias else node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "merge keys (<<) are not accepted; write the keys out")
        made = super().construct_mapping(node, deep=deep)
        if len(made) < len(node.value):
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = next(key for index, key in enumerate(keys) if key in keys[:index])
            raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} is given twice", node.start_mark)
        return made

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and len(value) > _LONGEST_NUMBER:
            text = f"a number of {len(value)} characters; accepted: at most {_LONGEST_NUMBER}"
            raise yaml.constructor.ConstructorError(None, None, text, node.start_mark)
        return value


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _check_extent(text: str) -> None:
    """Check that a text stands for a bounded number of values at a bounded depth, before any of them is built."""
    # Of every collection that is open, and of all that has an anchor: how many values, how deep.
    opened: list[tuple[str | None, int, int]] = [(None, 0, 0)]
    anchors: dict[str, tuple[int, int]] = {}
    total = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, 0, 0))
            size, depth = 0, 0
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size, depth = opened.pop()
            size, depth = size + 1, depth + 1
            if anchor is not None:
                anchors[anchor] = size, depth
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:
                raise InputError(f"alias *{event.anchor}: stands before or inside what it names")
            size, depth = anchors[event.anchor]
            total += size
        elif isinstance(event, yaml.ScalarEvent):
            size, depth = 1, 1
            if event.anchor is not None:
                anchors[event.anchor] = size, depth
        else:
            continue
        total += isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        anchor, others, deepest = opened[-1]
        if not isinstance(event, yaml.CollectionStartEvent):
            opened[-1] = anchor, others + size, max(deepest, depth)
        if total > _MOST_VALUES:
            raise InputError(f"stands for more than {_MOST_VALUES:,} values; accepted: at most so many")
        if len(opened) + depth > _DEEPEST:
            raise InputError(f"is nested more than {_DEEPEST} levels deep; accepted: at most so many")


def parse_yaml(text: str) -> Any:
    """The value that a YAML text stands for.

    Raises:
        InputError: without a name of where the text came from, for what is not valid YAML, or more than a config.
    """
    if len(text) > _LARGEST_FILE:
        raise InputError(f"has {len(text):,} characters; accepted: at most {_LARGEST_FILE:,}")
    try:
        _check_extent(text)
        return yaml.load(text, Loader=_Loader)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        # PyYAML raises whatever comes of a value that is not what its tag says: a date that does not exist, !!int x.
        raise InputError(f"not valid YAML: {' '.join(str(error).split())}") from None


def read_text(path: Path, longest: int = _LARGEST_FILE) -> str:
    """The text of a small UTF-8 file, of which no more than `longest` bytes are read.

    Raises:
        InputError: without the file's name, where it cannot be read, or is longer.
    """
    try:
        with path.open("rb") as file:
            content = file.read(longest + 1)
        if len(content) > longest:
            raise InputError(f"has more than {longest:,} bytes; accepted: at most so many")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"cannot be read ({error.reason} at byte {error.start}; accepted: UTF-8)") from None
