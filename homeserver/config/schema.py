"""The schema of the configuration, from the settings classes: fields, types in words, bounds.

The loader uses it to say what it expected where, the generator to document it. It is msgspec's view
of the classes (`msgspec.inspect`), in words for users: "a whole number, at least 1".
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from homeserver.config.fields import Section
from homeserver.config.settings import Settings


class SettingField(msgspec.Struct, frozen=True):
    """One documented setting. `default` is `msgspec.NODEFAULT` if the setting is required.

    `attribute` is its name in Python, which differs if its name in the file is a reserved word.
    """

    name: str
    attribute: str
    type: inspect.Type
    default: Any
    nullable: bool
    text: str
    unit: str | None
    default_text: str | None
    example: str | None
    former_name: str | None

    @property
    def required(self) -> bool:
        return self.default is msgspec.NODEFAULT


def root() -> inspect.StructType:
    """The type of the whole file."""
    return struct(Settings)


def struct(section: type[Section]) -> inspect.StructType:
    """The type of one settings class."""
    found = inspect.type_info(section)
    assert isinstance(found, inspect.StructType)
    return found


def fields(section: inspect.StructType) -> Iterator[SettingField]:
    """The fields of a section, in the order in which they are declared."""
    for field in section.fields:
        annotated, extra, schema = field.type, {}, {}
        if isinstance(annotated, inspect.Metadata):
            extra, schema = annotated.extra or {}, annotated.extra_json_schema or {}
        yield SettingField(
            name=field.encode_name,
            attribute=field.name,
            type=plain(annotated),
            default=field.default,
            nullable=_is_nullable(annotated),
            text=schema.get("description") or summary(field.type),
            unit=extra.get("unit"),
            default_text=extra.get("default"),
            example=extra.get("example"),
            former_name=extra.get("former_name"),
        )


def summary(kind: inspect.Type) -> str:
    """The documentation of a section: the docstring of its class."""
    section = section_of(kind)
    return " ".join((section.cls.__doc__ or "").split()) if section else ""


def _is_nullable(kind: inspect.Type) -> bool:
    """Whether the value may be `null`."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return isinstance(kind, inspect.UnionType) and any(
        isinstance(one, inspect.NoneType) for one in kind.types
    )


def plain(kind: inspect.Type) -> inspect.Type:
    """A type without its documentation, and without the `None` of an absent value."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        others = [plain(one) for one in kind.types if not isinstance(one, inspect.NoneType)]
        return others[0] if len(others) == 1 else inspect.UnionType(tuple(others))
    return kind


def section_of(kind: inspect.Type) -> inspect.StructType | None:
    """The section that a type is, or is a list of; `None` for plain values."""
    kind = plain(kind)
    if isinstance(kind, inspect.VarTupleType):
        kind = plain(kind.item_type)
    return kind if isinstance(kind, inspect.StructType) else None


def find_type(path: list[str | int]) -> inspect.Type | None:
    """The type at a place of the file, such as `["listeners", 0, "port"]`."""
    kind: inspect.Type = root()
    for step in path:
        found: inspect.Type | None = None
        if isinstance(kind, inspect.StructType):
            found = next((field.type for field in fields(kind) if field.name == step), None)
        elif isinstance(kind, inspect.VarTupleType) and isinstance(step, int):
            found = plain(kind.item_type)
        if found is None:
            return None
        kind = found
    return kind


def describe(kind: inspect.Type) -> str:
    """A type in words that follow "expected"."""
    match plain(kind):
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() as number:
            return "a whole number" + _bounds(number)
        case inspect.FloatType() as number:
            return "a number" + _bounds(number)
        case inspect.StrType() as text:
            return _describe_text(text)
        case inspect.CustomType():
            return "a path"
        case inspect.LiteralType(values):
            return "one of " + ", ".join(str(value) for value in values)
        case inspect.VarTupleType(item, least, _):
            return ("a list, not empty, of " if least else "a list of ") + _plural(item)
        case inspect.UnionType(kinds):
            return " or ".join(describe(one) for one in kinds)
        case _:
            return "a section (key: value)"


def _plural(kind: inspect.Type) -> str:
    match plain(kind):
        case inspect.StrType():
            return "texts"
        case inspect.CustomType():
            return "paths"
        case inspect.LiteralType(values):
            return ", ".join(str(value) for value in values)
        case _:
            return "sections (key: value)"


def _describe_text(text: inspect.StrType) -> str:
    if text.pattern is not None:
        return f"text that matches {text.pattern}"
    if text.min_length is not None:
        return f"text of at least {text.min_length} characters"
    return "text"


def _bounds(number: inspect.IntType | inspect.FloatType) -> str:
    if number.ge is not None and number.le is not None:
        return f" from {number.ge} to {number.le}"
    if number.ge is not None:
        return f" of at least {number.ge}"
    return f" above {number.gt}" if number.gt is not None else ""
