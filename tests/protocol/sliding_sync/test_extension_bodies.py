"""The extension for profiles in a request.

Spec: MSC4262
"""

from typing import Any

import msgspec
import pytest

from homeserver.protocol.errors import InvalidParam
from homeserver.protocol.sliding_sync.extension_bodies import ExtensionBodies
from homeserver.protocol.sliding_sync.request import ExtensionScope, ProfilesConfig

EXAMPLE = {"enabled": True, "fields": ["displayname", "avatar_url", "m.some_field"]}
UNSTABLE = "org.matrix.msc4262.profiles"


def profiles(**extensions: Any) -> ProfilesConfig | None:
    return msgspec.convert(extensions, ExtensionBodies).configs().profiles


@pytest.mark.parametrize("name", ["profiles", UNSTABLE])
def test_example_of_the_proposal(name: str) -> None:
    """The same under both names; the response has the one of the request."""
    fields = frozenset(EXAMPLE["fields"])  # type: ignore[arg-type]

    assert profiles(**{name: EXAMPLE}) == ProfilesConfig(ExtensionScope(), fields, name)


def test_fields_are_optional() -> None:
    """Without them, all fields are wanted; with an empty list, none."""
    whole, none = profiles(profiles={"enabled": True}), profiles(profiles=EXAMPLE | {"fields": []})

    assert whole is not None
    assert none is not None
    assert whole.fields is None
    assert none.fields == frozenset()


def test_extension_that_is_not_enabled_is_off() -> None:
    """Under one name or both."""
    off = EXAMPLE | {"enabled": False}

    assert profiles(profiles=off) is None
    assert profiles(**{"profiles": off, UNSTABLE: EXAMPLE}) is not None


@pytest.mark.parametrize("fields", [["m"] * 101, ["ü" * 128]])
def test_fields_are_bounded(fields: list[str]) -> None:
    """In number and in bytes."""
    with pytest.raises(InvalidParam):
        profiles(profiles={"enabled": True, "fields": fields})
