"""A generator of the reference page (docs/configuration.md) and the sample file (homeserver.yaml).

Both come from the settings classes alone, so that they cannot contradict the code; a test compares
them with the files in the repository. In the sample, "# " opens an explanation, and "#key:" is a
setting with its default, to be uncommented and changed.
"""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import inspect

from homeserver.config import schema
from homeserver.config.fields import Section
from homeserver.config.settings import Settings

WIDTH = 96
SAMPLE_HEAD = """\
# Configuration of the homeserver. It works as it stands, for a server on this machine alone.
#
# A line "# text" explains; a line "#key: value" is a setting with its default: remove the "#" to
# change it. Paths are relative to this file. The same as a page: docs/configuration.md
"""
REFERENCE_HEAD = """\
# Configuration

`homeserver run` reads `homeserver.yaml` in the working directory, or the file given with
`--config`; without one, every setting has its default. A setting that does not exist, or has a
value of the wrong type, stops the server with a sentence that names it. Relative paths are those of
the file's folder. A change takes effect when the server is started again.

This page is generated from `homeserver/config/settings.py` by `make config-docs`.
"""


def sample(**chosen: Any) -> str:
    """The content of `homeserver.yaml`; `chosen` are top-level settings to write as set."""
    lines = _sample_fields(schema.root(), Settings(**chosen), {"server_name", *chosen})
    return SAMPLE_HEAD + "\n" + "\n".join(lines).rstrip() + "\n"


def _sample_fields(
    section: inspect.StructType, values: Section, written: set[str]
) -> Iterator[str]:
    """Lines for one section; the settings named in `written` are not commented out."""
    for field in schema.fields(section):
        value = getattr(values, field.attribute)
        yield from textwrap.wrap(
            _explanation(field), WIDTH, initial_indent="# ", subsequent_indent="# "
        )
        inner = schema.section_of(field.type)
        if inner is not None and _has_defaults(inner) and value:
            yield f"{field.name}:"
            if isinstance(value, tuple):
                for item in value:
                    yield "  -"
                    yield from _indent(_sample_fields(inner, item, _differing(item)), 4)
            else:
                yield from _indent(_sample_fields(inner, value, _differing(value)), 2)
        else:
            mark = "" if field.name in written else "#"
            empty = value is None or value in ((), Path()) or field.default_text is not None
            text = field.example if mark and empty and field.example else _yaml(value)
            yield f"{mark}{field.name}: {text}"
        yield ""


def _explanation(field: schema.SettingField) -> str:
    """The comment above a setting: its description, values, unit and special default."""
    words = [field.text]
    if isinstance(field.type, inspect.LiteralType):
        words.append(f"This is {schema.describe(field.type)}.")
    if field.unit:
        words.append(f"Unit: {field.unit}.")
    if field.default_text:
        words.append(f"Default: {field.default_text}.")
    return " ".join(words)


def _has_defaults(section: inspect.StructType) -> bool:
    """Whether a section gets several lines; one without defaults stands on one line."""
    return any(not field.required for field in schema.fields(section))


def _differing(section: Section) -> set[str]:
    """The settings of an item of a list that are not at their defaults."""
    fields = schema.fields(schema.struct(type(section)))
    return {field.name for field in fields if getattr(section, field.attribute) != field.default}


def _indent(lines: Iterator[str], width: int) -> list[str]:
    text = textwrap.indent("\n".join(lines), " " * width)
    return text.rstrip().splitlines()


def _yaml(value: Any) -> str:
    """A value as YAML on one line."""
    plain = msgspec.to_builtins(value, enc_hook=str)
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def reference() -> str:
    """The content of docs/configuration.md."""
    parts = [REFERENCE_HEAD]
    seen: set[type] = set()
    for path, section in _sections(schema.root(), ""):
        if section.cls in seen:
            continue
        seen.add(section.cls)
        parts.append(f"## {'`' + path + '`' if path else 'Top level'}\n")
        parts.append(schema.summary(section) + "\n")
        parts.append("| setting | value | default | meaning |\n|---|---|---|---|")
        parts.append("\n".join(_row(field) for field in schema.fields(section)) + "\n")
    return "\n".join(parts)


def _sections(section: inspect.StructType, path: str) -> Iterator[tuple[str, inspect.StructType]]:
    """Every section with its path, from the top down; `[]` marks a list, `*` any name."""
    yield path, section
    for field in schema.fields(section):
        if inner := schema.section_of(field.type):
            name = field.name if _has_defaults(inner) or not field.default else "*"
            place = f"{path}.{name}" if path else name
            listed = isinstance(field.type, inspect.VarTupleType)
            yield from _sections(inner, place + "[]" * listed)


def _row(field: schema.SettingField) -> str:
    kind = schema.describe(field.type)
    if field.unit:
        kind += f" ({field.unit})"
    cells = [f"`{field.name}`", kind, _default(field), field.text]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(field: schema.SettingField) -> str:
    if field.required:
        return "required"
    if field.default_text is not None:
        return field.default_text
    inner = schema.section_of(field.type)
    if inner is not None and _has_defaults(inner) and isinstance(field.default, Section):
        return "see below"
    if isinstance(field.default, tuple) and inner is not None and field.default:
        return "one; see below"
    return f"`{_yaml(field.default)}`"
