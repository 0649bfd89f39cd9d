"""The documents that are generated from the settings: complete, current, and working."""

import re
from pathlib import Path

from msgspec import inspect

from homeserver.config import schema
from homeserver.config.loading import parse_settings
from homeserver.config.reference import reference, sample
from homeserver.config.settings import Settings
from tests.architecture.source import PACKAGES

TOP = Path(__file__).resolve().parents[2]


def test_sample_file_is_current() -> None:
    """The sample homeserver.yaml contains the present settings (make config-docs)."""
    assert (TOP / "homeserver.yaml").read_text(encoding="utf-8") == sample()


def test_reference_page_is_current() -> None:
    """docs/configuration.md contains the present settings (make config-docs)."""
    assert (TOP / "docs" / "configuration.md").read_text(encoding="utf-8") == reference()


def test_sample_file_works_as_it_stands() -> None:
    """The first start after a clone succeeds, with the documented defaults."""
    assert parse_settings(sample()) == (Settings(), [])


def test_every_commented_setting_can_be_uncommented() -> None:
    """An example that is refused would be worse than none."""
    text = re.sub(r"(?m)^( *)#(\w+:)", r"\1\2", sample())
    # A listener has a port or a Unix socket; the sample shows both.
    text = re.sub(r"(?m)^ +path: .*$", "", text)

    settings, unknown = parse_settings(text)

    assert unknown == []
    assert settings.registration.shared_secret == "a long random string"
    assert settings.support.contacts[0].matrix_id == "@admin:example.org"


def test_chosen_values_stand_in_a_new_file() -> None:
    """`homeserver init` writes the requested name."""
    settings, _ = parse_settings(sample(server_name="example.org"))

    assert settings.server_name == "example.org"


def test_every_setting_is_documented() -> None:
    """An operator need not read code to know what a setting does."""
    undocumented = [
        f"{section.cls.__name__}.{field.name}"
        for section in _all_sections()
        for field in schema.fields(section)
        if not field.text
    ]

    assert undocumented == []


def test_every_setting_is_read_by_something() -> None:
    """A documented setting that changes nothing is worse than a missing one."""
    declared = {"settings.py", "federation.py", "limits.py", "reference.py"}
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for package in PACKAGES
        for path in (TOP / package).rglob("*.py")
        if path.name not in declared or path.parent.name != "config"
    )

    unread = [
        f"{section.cls.__name__}.{field.name}"
        for section in _all_sections()
        for field in schema.fields(section)
        if not re.search(rf'\.{field.name}\b|"{field.name}"', code)
    ]

    assert unread == []


def _all_sections() -> list[inspect.StructType]:
    sections = [schema.root()]
    for section in sections:
        inner = (schema.section_of(field.type) for field in schema.fields(section))
        sections.extend(one for one in inner if one is not None and one not in sections)
    return sections
