"""Canonical JSON: the appendix's examples, the reference library, and refused values."""

import json
from typing import Any

import canonicaljson
import pytest
from hypothesis import given

from homeserver.protocol.signing.canonical_json import (
    MAX_DEPTH,
    MAX_INTEGER,
    NotCanonical,
    check_customary,
    check_depth,
    encode_canonical,
    encode_canonical_loose,
)
from tests.protocol.json_values import canonical_values, loose_values

APPENDIX = [
    ("{}", "{}"),
    ('{"one": 1, "two": "Two"}', '{"one":1,"two":"Two"}'),
    ('{"b": "2", "a": "1"}', '{"a":"1","b":"2"}'),
    ('{"b":"2","a":"1"}', '{"a":"1","b":"2"}'),
    (
        """{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {
        "display_name": "John Doe", "three_pids": [
        {"medium": "email", "address": "john.doe@example.org"},
        {"medium": "msisdn", "address": "123456789"}]}}}""",
        (
            '{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe",'
            '"three_pids":[{"address":"john.doe@example.org","medium":"email"},'
            '{"address":"123456789","medium":"msisdn"}]},"success":true}}'
        ),
    ),
    ('{"a": "日本語"}', '{"a":"日本語"}'),
    ('{"本": 2, "日": 1}', '{"日":1,"本":2}'),
    ('{"a": "\\u65E5"}', '{"a":"日"}'),
    ('{"a": null}', '{"a":null}'),
]


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(("text", "canonical"), APPENDIX)
def test_examples_of_the_specification_are_encoded_as_written_there(text, canonical):
    """A signature made by another server covers exactly these bytes."""
    assert encode_canonical(json.loads(text)) == canonical.encode()


def test_numbers_of_the_last_example_are_encoded_as_integers():
    """The example shows the values of the numbers: -0 is 0, and 1e10 is an integer."""
    value = json.loads('{"a": -0, "b": 1e10}', parse_float=lambda digits: int(float(digits)))

    assert encode_canonical(value) == b'{"a":0,"b":10000000000}'


@given(canonical_values)
def test_canonical_values_are_encoded_as_the_reference_library_does(value):
    """With one different byte every local signature fails on other servers."""
    assert encode_canonical(value) == canonicaljson.encode_canonical_json(value)


@given(loose_values)
def test_values_of_old_rooms_are_encoded_as_the_reference_library_does(value):
    """Events with floats in rooms of version 1 to 5 keep their hashes."""
    assert encode_canonical_loose(value) == canonicaljson.encode_canonical_json(value)


@pytest.mark.parametrize("number", [1.0, 0.5, -0.0, 1e16, 1e-5, 1e300])
def test_old_rooms_take_floats_and_new_rooms_refuse_them(number):
    """Room version 6 made floats invalid, and older rooms must stay readable."""
    value = {"a": [number]}

    with pytest.raises(NotCanonical):
        encode_canonical(value)

    assert encode_canonical_loose(value) == canonicaljson.encode_canonical_json(value)


@pytest.mark.parametrize("number", [MAX_INTEGER, -MAX_INTEGER])
def test_the_largest_integers_are_canonical(number):
    """The limits themselves are allowed."""
    assert encode_canonical([number]) == b"[%d]" % number


@pytest.mark.parametrize("number", [MAX_INTEGER + 1, -MAX_INTEGER - 1, 2**64])
def test_old_rooms_take_larger_integers_and_new_rooms_refuse_them(number):
    """JavaScript clients cannot hold them, which is why room version 6 refuses them."""
    with pytest.raises(NotCanonical):
        encode_canonical([number])

    assert encode_canonical_loose([number]) == b"[%d]" % number


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        "\ud800",
        {"\ud800": 1},
        [b"bytes"],
        {"a": {1}},
        {"a": object()},
    ],
)
def test_values_that_are_not_json_are_refused_in_every_room(value):
    """An encoder that wrote null or a list for these would sign something other than was sent."""
    with pytest.raises(NotCanonical):
        encode_canonical(value)

    with pytest.raises(NotCanonical):
        encode_canonical_loose(value)


@pytest.mark.parametrize("key", [1, None, True, 1.5])
def test_keys_must_be_strings(key):
    """A key that was converted to a string would change the signed object."""
    with pytest.raises(NotCanonical):
        encode_canonical({"a": {key: 1}})


def test_nesting_is_limited():
    """A deep event must be refused on receipt, and not crash a server that reads it later."""
    assert encode_canonical(nested(MAX_DEPTH)) == b"[" * MAX_DEPTH + b"1" + b"]" * MAX_DEPTH

    with pytest.raises(NotCanonical):
        encode_canonical(nested(MAX_DEPTH + 1))

    with pytest.raises(NotCanonical):
        encode_canonical_loose(nested(100_000))


@pytest.mark.parametrize("fits", [True, False])
def test_old_rooms_hold_nothing_that_other_servers_cannot_read(*, fits: bool) -> None:
    """Every server, including this one, can decode what a local user may send there."""
    nested: Any = 2**63 - 1 if fits else 2**63
    for _ in range(MAX_DEPTH - 1):
        nested = [nested]
    for value in ({"a": -(2**63) + fits}, {"a": nested}):
        if fits:
            check_customary(value)
        else:
            with pytest.raises(NotCanonical):
                check_customary(value)
    check_depth({"a": nested, "b": 10**300})
    with pytest.raises(NotCanonical):
        check_depth({"a": [nested]})
