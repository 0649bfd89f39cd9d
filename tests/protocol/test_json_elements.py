"""Lists with elements by different authors: good elements are decoded next to bad ones."""

from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.json_elements import (
    MAX_VALUE,
    BadElement,
    NotJsonText,
    decodable,
    decode_anyhow,
    decode_element,
    decoding,
)
from tests.protocol.json_values import loose_values

# JSON by its grammar that no decoder here accepts.
UNDECODABLE = {
    "a lone surrogate": rb'{"body":"\ud800"}',
    "a lone surrogate as a name": rb'{"\udc00":1}',
    "an infinite number": b'{"n":1e999}',
    "nested too deeply": b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
    "lists nested too deeply": b"[" * 30_000 + b"]" * 30_000,
    "an endless integer": b'{"n":' + b"9" * 5_000 + b"}",
}


class Batch(msgspec.Struct):
    """Elements of two kinds, and something else."""

    one: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=20)] = []
    other: list[msgspec.Raw] = []
    number: int = 0


def decode(text: bytes, kind: Any = Batch, **choices: Any) -> Any:
    """The decoded value of a text."""
    parts = decoding(kind, text, **choices)
    while True:
        try:
            next(parts)
        except StopIteration as stop:
            return stop.value


@pytest.mark.parametrize("bad", UNDECODABLE.values(), ids=UNDECODABLE)
@pytest.mark.parametrize("is_strict", [True, False])
def test_a_bad_element_costs_no_other(bad: bytes, *, is_strict: bool) -> None:
    """One message that cannot be decoded does not block all others between two servers."""
    text = b'{ "number" : 3, "one":[1, ' + bad + b' ,{"a":["]}"]} ],"other" :[' + bad + b"]}"

    batch = decode(text, is_strict=is_strict)

    assert list(decodable(batch.one)) == [1, {"a": ["]}"]}]
    assert (len(batch.one), len(batch.other), batch.number) == (3, 1, 3)
    with pytest.raises(BadElement):
        decode_element(batch.one[1])
    # A response next to its status.
    status, same = decode(b"[200," + text + b"]", tuple[int, Batch])
    assert (status, list(decodable(same.one))) == (200, [1, {"a": ["]}"]}])


@given(st.lists(loose_values), st.lists(loose_values), st.integers(0, 9), st.booleans())
def test_cutting_and_decoding_agree(
    one: list[Any], other: list[Any], number: int, has_space: bool
) -> None:
    """Both ways to the elements agree, so that no attacker can exploit a difference."""
    document = {"other": other, "unknown": one, "one": one[:20], "number": number}
    text = msgspec.json.encode(document)
    if has_space:
        text = msgspec.json.format(text)

    whole, cut = decode(text), decode(text, at_once=0, is_strict=True)

    assert whole == cut
    assert [decode_element(raw) for raw in cut.other] == [
        msgspec.json.decode(raw) for raw in whole.other
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"   ",
        b"{",
        b'{"one":[}',
        b'{"one":[1,]}',
        b'{"one":[,]}',
        b'{"one":[1 2]}',
        b'{"one":[]',
        b'{"one":[]}}',
        b'{"one":[{nope}]}',
        b'{"one":[[1}]}',
        b'{"one":[NaN]}',
        b'{"one":["\xff"]}',
        b'{"unknown":"\xff"}',
        b'{"one":[{"a":"\xed\xa0\x80"}]}',
        b'{"one":["]}',
        b"{one:[]}",
        b'{"one" []}',
        b'{"one":' + b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("at_once", [0, 1 << 20])
def test_a_request_that_is_no_json_is_refused_as_a_whole(text: bytes, at_once: int) -> None:
    """No server sends a text by accident that is not JSON by its grammar."""
    with pytest.raises(NotJsonText):
        decode(text, is_strict=True, at_once=at_once)


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"5",
        b'{"one":5}',
        b'{"number":"x"}',
        b'{"number":1e999}',
        b'{"one":[' + b"0," * 20 + b"0]}",
    ],
)
@pytest.mark.parametrize("at_once", [0, 1 << 20])
def test_json_of_another_shape_is_a_different_error(text: bytes, at_once: int) -> None:
    """So are lists with too many elements."""
    with pytest.raises(msgspec.ValidationError):
        decode(text, is_strict=True, at_once=at_once)


def test_nothing_is_parsed_without_a_bound() -> None:
    """Neither a value that is too large, nor a list that is too long."""
    with pytest.raises(NotJsonText):
        decode(b'{"unknown":[' + b"0," * MAX_VALUE + b"0]}", at_once=0)
    with pytest.raises(msgspec.ValidationError):
        decode(b'{"one":[' + b"0," * 5_000_000 + b"0]}", at_once=0)


def test_what_does_not_decode_can_still_be_traced() -> None:
    """The room of an event is known although it cannot be decoded."""
    assert decode_anyhow(rb'{"room_id":"!r:x","body":"\ud800","n":1e999}')["room_id"] == "!r:x"
    assert decode_anyhow(UNDECODABLE["nested too deeply"]) is None
    assert decode_anyhow(b"{") is None
