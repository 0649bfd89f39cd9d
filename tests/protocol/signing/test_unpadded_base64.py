"""Bytes as text, by the examples of the appendix."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.signing.unpadded_base64 import (
    decode_base64,
    encode_base64,
    encode_base64_url_safe,
)

APPENDIX = [
    (b"", ""),
    (b"f", "Zg"),
    (b"fo", "Zm8"),
    (b"foo", "Zm9v"),
    (b"foob", "Zm9vYg"),
    (b"fooba", "Zm9vYmE"),
    (b"foobar", "Zm9vYmFy"),
]


@pytest.mark.parametrize(("data", "text"), APPENDIX)
def test_examples_of_the_specification_are_encoded_as_written_there(data, text):
    """All servers must write the same hash with the same characters."""
    assert encode_base64(data) == text


@pytest.mark.parametrize("text", ["Zg", "Zg=", "Zg=="])
def test_padding_is_accepted_and_not_required(text):
    """Libraries differ in padding, and a key must not be refused for it."""
    assert decode_base64(text) == b"f"


@pytest.mark.parametrize("text", ["Z", "Zm9v!", "Zm 9v", "Zm9v\n", "Zm-v", "é", "Zg=Zg"])
def test_what_is_not_base64_is_refused(text):
    """A signature with stray characters must fail, not be read as another one."""
    with pytest.raises(ValueError):  # noqa: PT011 - the plain class is the promise
        decode_base64(text)


@given(st.binary())
def test_decoding_reverses_encoding(data):
    """A key that was written to a file is the key that is read."""
    assert decode_base64(encode_base64(data)) == data


@given(st.binary())
def test_the_url_safe_form_differs_in_two_characters_only(data):
    """Event ids of room version 4 need no escaping in a URL."""
    assert encode_base64_url_safe(data) == encode_base64(data).replace("+", "-").replace("/", "_")
