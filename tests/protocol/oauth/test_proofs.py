"""Code challenges, and the codes that users type."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.oauth.code_challenges import challenge_of, is_proved, is_valid_challenge
from homeserver.protocol.oauth.user_codes import ALPHABET, parse_user_code, show_user_code

verifiers = st.text(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~", min_size=43, max_size=128
)


def test_the_example_of_the_rfc() -> None:
    """RFC 7636, appendix B."""
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

    assert challenge_of(verifier) == challenge
    assert is_valid_challenge(challenge)
    assert is_proved(verifier, challenge)


@given(verifiers, verifiers)
def test_only_the_verifier_proves_its_challenge(one: str, other: str) -> None:
    """A code that was intercepted is worthless."""
    assert is_proved(one, challenge_of(one))
    assert is_proved(other, challenge_of(one)) == (one == other)


@pytest.mark.parametrize("verifier", ["", "a" * 42, "a" * 129, "a" * 42 + "=", "a" * 42 + "ä"])
def test_weak_and_malformed_verifiers_prove_nothing(verifier: str) -> None:
    """A client that chose a short secret is refused, and so is one that sends none."""
    assert not is_proved(verifier, challenge_of(verifier))


@pytest.mark.parametrize("challenge", ["", "a" * 42, "a" * 44, "a" * 42 + "=", "a" * 42 + "+"])
def test_malformed_challenges_are_recognised(challenge: str) -> None:
    """What no verifier can have is refused before the user is asked."""
    assert not is_valid_challenge(challenge)


@given(st.text(ALPHABET, min_size=8, max_size=8), st.sampled_from([" ", "-", "  ", ".", ""]))
def test_a_code_is_typed_in_any_way(letters: str, separator: str) -> None:
    """A user need not see whether the letters are large, or how they are grouped."""
    typed = separator.join([letters[:3].lower(), letters[3:]])

    assert parse_user_code(typed) == letters
    assert parse_user_code(show_user_code(letters)) == letters


@given(st.text(max_size=100))
def test_any_text_is_a_code_or_none(typed: str) -> None:
    """No input is an error of the server."""
    letters = parse_user_code(typed)

    assert letters is None or (len(letters) == 8 and set(letters) <= set(ALPHABET))
