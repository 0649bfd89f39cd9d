"""Scopes: what a client must ask for, and in which words it gets it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.oauth.errors import OAuthError
from homeserver.protocol.oauth.scopes import API, DEVICE, parse_scope

ALLOWED = [chr(code) for code in (0x21, *range(0x23, 0x5C), *range(0x5D, 0x7F))]
device_ids = st.text(st.sampled_from(ALLOWED), min_size=1, max_size=255)
others = st.lists(st.sampled_from(["openid", "urn:matrix:client:other", "profile"]), max_size=3)


@given(
    st.sets(st.sampled_from(API), min_size=1),
    st.sets(st.sampled_from(DEVICE), min_size=1),
    device_ids,
    others,
    st.randoms(use_true_random=False),
)
def test_a_scope_is_granted_in_the_words_of_the_client(
    apis: set[str], prefixes: set[str], device_id: str, other: list[str], random: object
) -> None:
    """Clients know the names of the specification, of the proposal, or both."""
    known = {*apis, *(prefix + device_id for prefix in prefixes)}
    tokens = [*known, *other]
    random.shuffle(tokens)  # type: ignore[attr-defined]

    scope = parse_scope(" ".join(tokens))

    assert scope.device_id == device_id
    assert set(scope.text.split()) == known
    assert parse_scope(scope.text) == scope


@pytest.mark.parametrize(
    "text",
    [
        "",
        "openid",
        API[0],
        f"{DEVICE[0]}ABC",
        f"{API[0]} {DEVICE[0]}",
        f"{API[0]} {DEVICE[0]}ABC {DEVICE[0]}DEF",
        f"{API[0]} {DEVICE[0]}ABC {DEVICE[1]}DEF",
        f'{API[0]} {DEVICE[0]}A"B',
        f"{API[0]} {DEVICE[0]}A\\B",
        f"{API[0]} {DEVICE[0]}Ä",
        f"{API[0]}\n{DEVICE[0]}ABC",
        f"{API[0]} {DEVICE[0]}{'a' * 256}",
        f"{API[0]} {DEVICE[0]}ABC {'a' * 2_048}",
    ],
)
def test_other_scopes_are_refused(text: str) -> None:
    """A session has full access, as exactly one device."""
    with pytest.raises(OAuthError) as refused:
        parse_scope(text)

    assert refused.value.errcode == "invalid_scope"


@given(st.text(max_size=100))
def test_any_text_is_a_scope_or_refused(text: str) -> None:
    """No scope is an error of the server."""
    for each in (text, f"{API[0]} {DEVICE[0]}{text}"):
        try:
            scope = parse_scope(each)
        except OAuthError:
            continue
        assert scope.text.isascii()
        assert scope.device_id
