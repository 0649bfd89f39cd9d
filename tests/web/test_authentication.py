"""Access tokens: where they may be in a request."""

import pytest

from homeserver.protocol.errors import MissingToken
from homeserver.web.authentication import find_token


def test_scheme_is_not_case_sensitive() -> None:
    """HTTP says so, and some libraries write it small."""
    assert find_token([b"bearer  abc "], b"", None) == "abc"


def test_same_token_twice_is_one_token() -> None:
    """Old clients send it in both places while they change over."""
    assert find_token([b"Bearer abc"], b"a=b&access_token=abc", [b"m.token.YWJj"]) == "abc"


def test_request_without_a_token_has_none() -> None:
    """The route decides whether that is an error."""
    assert find_token(None, b"not_access_token=x", [b"m.json"]) is None


@pytest.mark.parametrize(
    ("authorization", "query", "subprotocols"),
    [
        ([b"Bearer a", b"Bearer b"], b"", None),
        ([b"Bearer a"], b"access_token=b", None),
        ([b"Bearer"], b"", None),
        ([b"Bearer \xff"], b"", None),
        ([b"X-Matrix origin=a"], b"", None),
        (None, b"access_token=", None),
        (None, b"access_token=a&access_token=b", None),
        (None, b"", [b"m.token.a"]),
        (None, b"", [b"m.token._w"]),
    ],
)
def test_doubtful_tokens_are_refused(
    authorization: list[bytes] | None, query: bytes, subprotocols: list[bytes] | None
) -> None:
    """Guessing which one was meant could log a user out, or in as another user."""
    with pytest.raises(MissingToken):
        find_token(authorization, query, subprotocols)
