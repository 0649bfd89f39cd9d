"""A loader of `homeserver.yaml`, which makes `Settings` and reports every error in the file.

An unknown key is refused with a suggestion, since a misspelt setting that is silently ignored would
be found too late; `unknown_keys: warn` only logs it. A key without a value keeps its default, so
that a section may be commented out line by line; `null` is a value of the settings that allow it.
Values in the file never appear in messages, as they may be secrets. All errors are reported
together, so that the operator can fix them in one go. Relative paths are those of the folder of the
file.
"""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect
from twisted.logger import Logger

from homeserver.config import schema
from homeserver.config.errors import ConfigError
from homeserver.config.fields import Mistake, Section, WrongSettings
from homeserver.config.settings import Settings
from homeserver.config.yaml_file import Steps, YamlFile, read_yaml

log = Logger()
AnySection = TypeVar("AnySection", bound=Section)
_WHERE = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>\$.*)`)?$", re.DOTALL)


class Problem(msgspec.Struct, frozen=True, order=True):
    """An error at one place of the file; they sort in the order of the file."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


def load_settings(path: Path | None) -> Settings:
    """The settings in the file at `path`, or the defaults (in the working directory) for `None`.

    Raises `ConfigError`, which names the file and each wrong place in it, with its line and what
    was expected there.
    """
    if path is None:
        return _resolve_paths(Settings(), Path.cwd())
    try:
        settings, warnings = parse_settings(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except ConfigError as error:
        problems = str(error).splitlines()
        raise ConfigError("\n".join(f"{path}, {problem}" for problem in problems)) from None
    for problem in warnings:
        log.warn("{path}, {problem}", path=str(path), problem=problem)
    return _resolve_paths(settings, path.resolve().parent)


def parse_settings(text: str) -> tuple[Settings, list[str]]:
    """The settings in a YAML text, and warnings about allowed unknown keys and former names.

    Raises `ConfigError` with all errors.
    """
    file = read_yaml(text)
    problems = [Problem(*mistake) for mistake in file.mistakes]
    content = {} if file.content is None else file.content
    if not isinstance(content, dict):
        problems.append(Problem(1, "expected a section (key: value) at the top"))
        content = {}
    unknown: list[Problem] = []
    conversion = Conversion(file)
    known = conversion.known(schema.root(), content, (), unknown)
    if content.get("unknown_keys") != "warn":
        problems += unknown
    settings = conversion.convert(known)
    problems += conversion.problems
    if problems or settings is None:
        raise ConfigError("\n".join(map(str, sorted(problems))))
    return settings, [str(problem) for problem in sorted([*unknown, *conversion.renamed])]


class Conversion:
    """A conversion of the parsed file into settings, which collects all errors.

    msgspec reports only the first wrong value; so this is recorded and removed, and msgspec called
    again with the rest, until no error is left.
    """

    def __init__(self, file: YamlFile) -> None:
        self.problems: list[Problem] = []
        self.renamed: list[Problem] = []  # settings that the file gives by their former names
        self._file = file
        self._left_out: dict[int, set[str]] = {}  # id of a section: its wrong settings
        self._former: dict[tuple[int, str], str] = {}  # (id of a section, name): name in the file
        self._removed: dict[int, int] = {}  # id of a list: items removed so far, from its top

    def known(self, kind: inspect.Type, value: Any, place: Steps, unknown: list[Problem]) -> Any:
        """`value` without keys that are unknown (they are added to `unknown`) or have no value."""
        kind = schema.plain(kind)
        if isinstance(kind, inspect.VarTupleType) and isinstance(value, list):
            return [
                self.known(kind.item_type, item, (*place, number), unknown)
                for number, item in enumerate(value)
            ]
        if not isinstance(kind, inspect.StructType) or not isinstance(value, dict):
            return value
        fields = {field.name: field for field in schema.fields(kind)}
        former = {field.former_name: name for name, field in fields.items() if field.former_name}
        result: dict[str, Any] = {}
        for key, item in value.items():
            inner = (*place, str(key))
            if key in former and former[key] not in value:
                text = f"{_name(inner)} was renamed to {former[key]}; the old name will be removed"
                self.renamed.append(Problem(self._file.line_of(inner), text))
                self._former[id(result), former[key]] = key
                key = former[key]
            if key not in fields:
                remedy = _suggestion(str(key), _name(place), list(fields)) or "; remove it"
                text = f"{_name(inner)}: unknown key{remedy}"
                unknown.append(Problem(self._file.line_of(inner), text))
                # A misspelt setting is not reported as missing, too.
                near = set(difflib.get_close_matches(str(key), fields, n=1)) - value.keys()
                self._left_out.setdefault(id(result), set()).update(near)
            elif item is not None or (fields[key].nullable and not self._file.is_empty(inner)):
                result[key] = self.known(fields[key].type, item, inner, unknown)
        return result

    def convert(self, known: Any) -> Settings | None:
        """The settings, or `None` if there are errors."""
        while True:
            try:
                settings = msgspec.convert(known, Settings, dec_hook=_read_path)
            except msgspec.ValidationError as error:
                what, steps = _where(error)
                self._note(error, what, steps, known)
                if not steps:
                    return None
                self._take_out(steps, known)
            else:
                return None if self.problems else settings

    def _note(self, error: Exception, what: str, steps: list[str | int], known: Any) -> None:
        if isinstance(error.__cause__, WrongSettings):
            broken = self._left_out.get(id(_at(known, steps)), set())
            mistakes = [
                mistake
                for mistake in error.__cause__.mistakes
                if broken.isdisjoint(mistake.settings)
            ]
        else:
            mistakes = [Mistake(what)]
        steps_in_file = self._steps_in_file(steps, known)
        for mistake in mistakes:
            text, place = _explain(mistake.text, steps, steps_in_file, known)
            line = self._file.line_of(place)
            for setting in mistake.settings:
                line = max(line, self._file.line_of((*steps_in_file, setting)))
            self.problems.append(Problem(line, text))

    def _steps_in_file(self, steps: list[str | int], known: Any) -> Steps:
        """A place in the original file, in which the lists are complete."""
        result: list[str | int] = []
        for step in steps:
            if isinstance(step, int):
                result.append(step + self._removed.get(id(known), 0))
            else:
                result.append(self._former.get((id(known), step), step))
            known = known[step]
        return tuple(result)

    def _take_out(self, steps: list[str | int], known: Any) -> None:
        for number, step in enumerate(steps):
            if isinstance(step, str):
                self._left_out.setdefault(id(_at(known, steps[:number])), set()).add(step)
        around, last = _at(known, steps[:-1]), steps[-1]
        del around[last]
        if isinstance(last, int):
            # The items before it in the list were removed already, or are right.
            self._removed[id(around)] = self._removed.get(id(around), 0) + 1
            if not around:
                # That the list is empty now is not an error in the file.
                self._take_out(steps[:-1], known)


def _at(content: Any, steps: list[str | int]) -> Any:
    for step in steps:
        content = content[step]
    return content


def _where(error: msgspec.ValidationError) -> tuple[str, list[str | int]]:
    """The place of an error that msgspec found, and its description."""
    match = _WHERE.match(str(error))
    what, path = (match["what"], match["path"] or "$") if match else (str(error), "$")
    return what, [
        int(number) if number else name for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", path)
    ]


def _name(place: Steps) -> str:
    """A place in the form that users write, such as `listeners[0].port`."""
    return "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in place
    ).removeprefix(".")


def _suggestion(key: str, path: str, siblings: list[str]) -> str:
    """The nearest known key: of the same section, or of another section with the same name."""
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


def _explain(what: str, steps: list[str | int], in_file: Steps, content: Any) -> tuple[str, Steps]:
    """A sentence with the place and what was expected, from msgspec's message; and the place.

    `steps` lead to the value in `content`, `in_file` in the file.
    """
    if missing := re.match("Object missing required field `(.*)`", what):
        return f"{_name((*in_file, missing[1]))}: missing, but required", in_file
    kind = schema.find_type(steps)
    if kind is not None and what.startswith(("Expected", "Invalid")):
        got = _got(kind, _at(content, steps))
        return f"{_name(in_file)}: expected {schema.describe(kind)}{got}", in_file
    return f"{_name(in_file)}: {what}" if in_file else what, in_file


def _got(kind: inspect.Type, value: Any) -> str:
    """The value found in its place, if that helps."""
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
