"""Reads `homeserver.yaml` into `Settings`, and tells a person what is wrong with it.

A key that no setting has is refused with the nearest right one, since a misspelt setting that is
silently ignored is found too late; `unknown_keys: warn` only logs it. A key without a value keeps
its default, so that a section may be commented out line by line. Texts of the file never appear in
messages, as they may be secrets. Relative paths are those of the file's folder.
"""

import difflib
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml
from msgspec import inspect
from twisted.logger import Logger

from homeserver.config import schema
from homeserver.config.fields import Section
from homeserver.config.settings import Settings

log = Logger()
AnySection = TypeVar("AnySection", bound=Section)
_WHERE = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>\$.*)`)?$", re.DOTALL)


class ConfigError(Exception):
    """The configuration cannot be used; the message has a line for each problem."""


def load_settings(path: Path | None) -> Settings:
    """The settings in the file at `path`, or the defaults (in the working directory) for `None`.

    Raises `ConfigError`, which names the file, the place in it and what was expected there.
    """
    if path is None:
        return _resolve_paths(Settings(), Path.cwd())
    try:
        settings, unknown = parse_settings(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except ConfigError as error:
        problems = str(error).splitlines()
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems)) from None
    for problem in unknown:
        log.warn("{path}: {problem}", path=str(path), problem=problem)
    return _resolve_paths(settings, path.resolve().parent)


def parse_settings(text: str) -> tuple[Settings, list[str]]:
    """The settings in a YAML text, and what is to be said of unknown keys that it allows.

    Raises `ConfigError`.
    """
    content = _read_yaml(text)
    unknown: list[str] = []
    known = _known(schema.root(), content, "", unknown)
    if unknown and content.get("unknown_keys") != "warn":
        raise ConfigError("\n".join(unknown))
    try:
        settings = msgspec.convert(known, Settings, dec_hook=_read_path)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), known)) from None
    return settings, unknown


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is a mistake, not a silent replacement."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read_yaml(text: str) -> dict[str, Any]:
    try:
        content = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{where}not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {str(error).splitlines()[0]}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError("expected a section (key: value) at the top")
    return content


def _known(kind: inspect.Type, value: Any, path: str, unknown: list[str]) -> Any:
    """`value` without keys that are unknown (they are added to `unknown`) or have no value."""
    kind = schema.plain(kind)
    if isinstance(kind, inspect.VarTupleType) and isinstance(value, list):
        return [
            _known(kind.item_type, item, f"{path}[{number}]", unknown)
            for number, item in enumerate(value)
        ]
    if not isinstance(kind, inspect.StructType) or not isinstance(value, dict):
        return value
    fields = {field.name: field for field in schema.fields(kind)}
    result = {}
    for key, item in value.items():
        place = f"{path}.{key}" if path else str(key)
        if key not in fields:
            unknown.append(f"{place}: unknown key" + _suggestion(str(key), path, list(fields)))
        elif item is not None:
            result[key] = _known(fields[key].type, item, place, unknown)
    return result


def _suggestion(key: str, path: str, siblings: list[str]) -> str:
    """The nearest right key: one of the same section, or one of another that is called alike."""
    if near := difflib.get_close_matches(key, siblings, n=1):
        return f"; did you mean {path}.{near[0]}?" if path else f"; did you mean {near[0]}?"
    everywhere = {place.rpartition(".")[2]: place for place in _places(schema.root(), "")}
    if near := difflib.get_close_matches(key, everywhere, n=1, cutoff=0.8):
        return f"; did you mean {everywhere[near[0]]}?"
    return ""


def _places(section: inspect.StructType, path: str) -> Iterator[str]:
    for field in schema.fields(section):
        place = f"{path}.{field.name}" if path else field.name
        yield place
        if inner := schema.section_of(field.type):
            a_list = isinstance(field.type, inspect.VarTupleType)
            yield from _places(inner, place + "[]" * a_list)


def _read_path(kind: type, value: Any) -> Any:
    if kind is not Path or not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("Expected a path")
    return Path(value)


def _explain(message: str, content: Any) -> str:
    """A sentence with the place and the expected type, from msgspec's message."""
    match = _WHERE.match(message)
    what, path = (match["what"], match["path"] or "$") if match else (message, "$")
    steps: list[str | int] = [
        int(number) if number else name for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", path)
    ]
    place = path.removeprefix("$").removeprefix(".")
    if missing := re.match("Object missing required field `(.*)`", what):
        return f"{place}.{missing[1]}: missing, but required".removeprefix(".")
    kind = schema.find_type(steps)
    if kind is not None and what.startswith(("Expected", "Invalid")):
        for step in steps:
            content = content[step]
        return f"{place}: expected {schema.describe(kind)}{_got(kind, content)}"
    return f"{place}: {what}" if place else what


def _got(kind: inspect.Type, value: Any) -> str:
    """What stands there instead, where that helps."""
    match value:
        case bool():
            return f", got {str(value).lower()}"
        case int() | float():
            in_quotes = " (put it in quotes)" if isinstance(kind, inspect.StrType) else ""
            return f", got {value}{in_quotes}"
        case str():
            return "" if isinstance(kind, inspect.StrType | inspect.LiteralType) else ", got text"
        case list():
            return "" if isinstance(kind, inspect.VarTupleType) else ", got a list"
        case dict():
            return ", got a section"
    return ""


def _resolve_paths(section: AnySection, folder: Path) -> AnySection:
    """The section with every relative path made absolute, as a path in `folder`."""
    changes = {
        name: _resolve(value, folder) for name, value in msgspec.structs.asdict(section).items()
    }
    return msgspec.structs.replace(section, **changes)


def _resolve(value: Any, folder: Path) -> Any:
    if isinstance(value, Path):
        return folder / value.expanduser()
    if isinstance(value, Section):
        return _resolve_paths(value, folder)
    if isinstance(value, tuple):
        return tuple(_resolve(item, folder) for item in value)
    return value
