"""Lists of many hands: what is good of them is had, whatever stands beside it."""

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

# JSON by its grammar, of which no decoder here makes a value.
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
    """What is made of a text, at once."""
    parts = decoding(kind, text, **choices)
    while True:
        try:
            next(parts)
        except StopIteration as stop:
            return stop.value


@pytest.mark.parametrize("bad", UNDECODABLE.values(), ids=UNDECODABLE)
@pytest.mark.parametrize("is_strict", [True, False])
def test_a_bad_element_costs_no_other(bad: bytes, *, is_strict: bool) -> None:
    """One message that cannot be read does not cut two servers off from each other."""
    text = b'{ "number" : 3, "one":[1, ' + bad + b' ,{"a":["]}"]} ],"other" :[' + bad + b"]}"

    batch = decode(text, is_strict=is_strict)

    assert list(decodable(batch.one)) == [1, {"a": ["]}"]}]
    assert (len(batch.one), len(batch.other), batch.number) == (3, 1, 3)
    with pytest.raises(BadElement):
        decode_element(batch.one[1])
    # Where the answer stands beside its status.
    status, same = decode(b"[200," + text + b"]", tuple[int, Batch])
    assert (status, list(decodable(same.one))) == (200, [1, {"a": ["]}"]}])


@given(st.lists(loose_values), st.lists(loose_values), st.integers(0, 9), st.booleans())
def test_cutting_and_decoding_agree(
    one: list[Any], other: list[Any], number: int, has_space: bool
) -> None:
    """Both ways to the elements come to the same, so that nobody can play one against the other."""
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
def test_a_request_that_is_no_json_is_none_as_a_whole(text: bytes, at_once: int) -> None:
    """Nobody sends by accident what has no grammar."""
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
def test_json_of_another_shape_is_told_apart(text: bytes, at_once: int) -> None:
    """So are more elements than there may be."""
    with pytest.raises(msgspec.ValidationError):
        decode(text, is_strict=True, at_once=at_once)


def test_nothing_is_gone_through_without_a_bound() -> None:
    """Neither a value that is larger than any, nor a list that is longer."""
    with pytest.raises(NotJsonText):
        decode(b'{"unknown":[' + b"0," * MAX_VALUE + b"0]}", at_once=0)
    with pytest.raises(msgspec.ValidationError):
        decode(b'{"one":[' + b"0," * 5_000_000 + b"0]}", at_once=0)


def test_what_does_not_decode_can_still_be_traced() -> None:
    """The room of an event is known although it cannot be taken."""
    assert decode_anyhow(rb'{"room_id":"!r:x","body":"\ud800","n":1e999}')["room_id"] == "!r:x"
    assert decode_anyhow(UNDECODABLE["nested too deeply"]) is None
    assert decode_anyhow(b"{") is None
