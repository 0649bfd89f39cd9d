"""Claims of providers, and what accounts take from them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.identifiers import InvalidIdentifier, check_localpart
from homeserver.protocol.single_sign_on.claims import (
    ClaimRules,
    InvalidClaims,
    fill_template,
    identify,
    meets,
)
from homeserver.protocol.single_sign_on.localparts import map_localpart, suggest_localpart

RULES = ClaimRules(
    "sub", "{preferred_username}", "{name}", "{email}", (), has_verified_emails=False
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("name", "localpart"),
    [
        ("alice", "alice"),
        ("Alice", "alice"),
        ("cas_user!", "cas_user=21"),
        ("a=b", "a=3db"),
        ("á#", "=c3=a1=23"),
        ("ÀB", "=c3=80b"),
        ("a.b_c-d/e+f", "a.b_c-d/e+f"),
        ("", ""),
    ],
)
def test_names_are_mapped_as_the_specification_says(name: str, localpart: str) -> None:
    """Other servers of the organisation name the same user alike."""
    assert map_localpart(name) == localpart


@given(st.text(min_size=1, max_size=50))
def test_every_name_has_a_valid_localpart(name: str) -> None:
    """A mapped name is valid unless it is too long, and case alone is lost."""
    mapped = map_localpart(name)
    try:
        check_localpart(mapped, "example.org")
    except InvalidIdentifier:
        assert len(mapped) > 200
    assert map_localpart(name.upper() if name.isascii() else name) == mapped


@given(st.text())
def test_a_suggestion_has_only_simple_characters(name: str) -> None:
    """The page shows what the user could have typed."""
    suggestion = suggest_localpart(name)
    if suggestion:
        check_localpart(suggestion, "example.org")
    assert "=" not in suggestion


def test_templates_are_filled_with_claims() -> None:
    """Other braces and missing claims give nothing, rather than half a name."""
    claims = {"given": "Ann", "family": "Lee", "n": 7, "empty": "", "list": ["a", "b"]}

    assert fill_template("{given} {family}", claims) == "Ann Lee"
    assert fill_template("u{n}", claims) == "u7"
    assert fill_template("{list}", claims) == "a"
    assert fill_template("fixed", claims) == "fixed"
    assert fill_template("{given} {middle}", claims) is None
    assert fill_template("{empty}", claims) is None
    # A claim is text, not another template.
    assert fill_template("{given}", {"given": "{family}", "family": "Lee"}) == "{family}"


def test_requirements_are_met_by_one_of_several_values() -> None:
    """A group among others is enough, and nothing else is."""
    claims = {"groups": ["a", "b"], "admin": True, "hd": "example.org", "none": []}

    assert meets(["groups=b", "admin=true", "hd"], claims)
    assert not meets(["groups=c"], claims)
    assert not meets(["groups=a,b"], claims)
    assert not meets(["none"], claims)
    assert not meets(["hd="], claims)
    assert not meets(["missing"], claims)


@given(
    st.fixed_dictionaries(
        {"sub": JSON},
        optional={
            "preferred_username": JSON,
            "name": JSON,
            "email": JSON,
            "email_verified": JSON,
        },
    )
)
def test_any_claims_give_an_identity_or_an_error(claims: dict[str, Any]) -> None:
    """What a provider says can be stored and shown."""
    try:
        identity = identify(RULES, claims)
    except InvalidClaims:
        return
    for text in (identity.subject, identity.suggestion, identity.display_name, identity.email):
        assert text is None or text
        assert len((text or "").encode()) <= 400
    assert identity.display_name is None or identity.display_name.isprintable()
    assert identity.email is None or claims["email_verified"] in (True, "true")
