"""A reader of YAML that keeps the line of each value, and finds all errors in its keys.

A duplicate key is an error, not a silent replacement, and every key must be text.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

Steps = tuple[str | int, ...]
"""A place in the file: names of keys, and numbers of items from 0 on."""

_NULL_TAG = "tag:yaml.org,2002:null"
_KEY_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


class YamlFile(msgspec.Struct):
    """A parsed file: its content, and its errors, as (line, text)."""

    content: Any = None
    mistakes: list[tuple[int, str]] = msgspec.field(default_factory=list)
    _lines: dict[Steps, int] = msgspec.field(default_factory=dict)
    _empty: set[Steps] = msgspec.field(default_factory=set)

    def line_of(self, place: Steps) -> int:
        """The line, from 1 on, of a place, or of the nearest place around it that exists."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place, 1)

    def is_empty(self, place: Steps) -> bool:
        """Whether there is a key without a value, which is not an explicit `null`."""
        return place in self._empty


def read_yaml(text: str) -> YamlFile:
    """Parse a text. If it is not YAML at all, only the first error is reported."""
    file = YamlFile()
    try:
        loader = yaml.SafeLoader(text)
    except yaml.YAMLError as error:
        file.mistakes.append((1, f"not valid YAML: {str(error).splitlines()[0]}"))
        return file
    try:
        node = loader.get_single_node()
        if node is not None:
            file._lines.update(_examine(node, (), file, set()))
            file.content = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        file.mistakes.append((line, f"not valid YAML: {error.problem}"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A date such as 2026-99-99 raises an error of the constructor of dates.
        message = str(error).splitlines() or [type(error).__name__]
        file.mistakes.append((1, f"not valid YAML: {message[0]}"))
    finally:
        loader.dispose()
    return file


def _examine(
    node: yaml.Node, place: Steps, file: YamlFile, around: set[int]
) -> Iterator[tuple[Steps, int]]:
    """The line of everything below a node; keys that cannot be used are recorded and removed."""
    yield place, node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode) and node.tag == _NULL_TAG and not node.value:
        file._empty.add(place)
    if id(node) in around:
        return  # an anchor that contains itself
    around = around | {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _examine(item, (*place, number), file, around)
    elif isinstance(node, yaml.MappingNode):
        node.value = list(_usable(node, file.mistakes))
        for key, value in node.value:
            inner = (*place, key.value)
            yield from _examine(value, inner, file, around)
            # A section begins in the line of its name, not in that of its first key.
            yield inner, key.start_mark.line + 1


def _usable(
    node: yaml.MappingNode, mistakes: list[tuple[int, str]]
) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    seen: set[str] = set()
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag not in _KEY_TAGS:
            mistakes.append((line, "not valid YAML: a key must be text"))
        elif key.value in seen:
            mistakes.append((line, f"not valid YAML: the key {key.value!r} occurs twice"))
        else:
            seen.add(key.value)
            yield key, value
