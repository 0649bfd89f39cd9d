"""Strategies for malformed requests, close enough to valid ones to get past the decoder.

Bodies and query parameters follow the types of a handler's parameters, with a wrong value here and
there: a request that is refused by its shape would test nothing but the decoder. `Known` are names
of things that exist, so that malformed requests reach a room.
"""

import json
from typing import Any, get_type_hints
from urllib.parse import quote, quote_from_bytes

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as types

from homeserver.web.routes import Route

Known = dict[str, str]
WRONG_ONCE_IN = 10
EVENT_TYPES = (
    "m.room.message", "m.room.member", "m.room.power_levels", "m.room.join_rules", "m.room.create",
    "m.room.name", "m.room.canonical_alias", "m.room.history_visibility", "m.room.tombstone",
    "m.room.server_acl", "m.room.third_party_invite", "m.room.guest_access", "m.room.redaction",
    "m.room.encryption", "m.reaction", "m.direct", "m.tag", "m.fully_read", "org.example",
)  # fmt: skip
# The longest `timeout` of a request, in ms: fuzzing must not wait for new events.
LONGEST_WAIT_MS = 5
DEEP = 3_000
KEYS = (
    "type", "content", "body", "msgtype", "room_id", "user_id", "event_id", "state_key", "sender",
    "membership", "users", "events", "users_default", "join_rule", "alias", "auth", "session",
    "password", "identifier", "filter", "rooms", "m.relates_to", "rel_type", "limit", "types",
    "redacts", "room_version", "creator", "predecessor", "allow", "via", "signed", "url", "\0", "",
)  # fmt: skip

hostile_text = st.one_of(
    st.sampled_from(
        ["", "\0", "a\0b", "\ud800", "\U0001f600", "../..", "%00", "'; --", "@", "!", "$", "#a:b",
         "@a:b", "!a:b", "x" * 300, "x" * 70_000, "\u202e", "\n", "NaN", "-1", "0", "1e999"]
    ),
    st.text(max_size=20),
)  # fmt: skip
hostile_number = st.one_of(
    st.sampled_from(
        [0, -1, 2**31, 2**53, -(2**53), 2**63, 2**64, 10**400, 0.1, 1e300, -0.0]
    ),
    st.integers(),
)  # fmt: skip
scalar = st.one_of(st.none(), st.booleans(), hostile_number, hostile_text)
any_json = st.recursive(
    scalar,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), hostile_text), inner, max_size=4),
    ),
    max_leaves=12,
)
not_json = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"",
            b"{",
            b'{"a":',
            b"NaN",
            b'{"a": NaN}',
            b'{"a": 1e999}',
            b"\xef\xbb\xbf{}",
            '{"a": 1}'.encode("utf-16"),
            b'{"a": "\xff"}',
            b'{"a": "\xed\xa0\x80"}',
            b"[" * DEEP + b"]" * DEEP,
            b'{"a":' * DEEP + b"1" + b"}" * DEEP,
            b'{"a": 1, "a": 2}',
            b'{"a": ' + b"9" * 5_000 + b"}",
        ]
    ),
)


def mostly(right: st.SearchStrategy[Any], wrong: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly `right`, sometimes `wrong`."""
    return st.integers(1, WRONG_ONCE_IN).flatmap(
        lambda number: wrong if number == WRONG_ONCE_IN else right
    )


def bodies(route: Route, known: Known) -> st.SearchStrategy[bytes]:
    """Bodies for a route: valid in shape, any JSON, or no JSON at all."""
    annotation = get_type_hints(route.handler).get("body")
    honest = objects(known)
    if annotation is not None:
        honest = value_of(types.type_info(annotation), known)
    return st.one_of(
        honest.map(_encode), honest.map(_encode), objects(known).map(_encode), _no_honest_body
    )


def queries(route: Route, known: Known) -> st.SearchStrategy[str]:
    """Query strings for a route, without the question mark."""
    nonsense = st.sampled_from(["a=%00", "a=%ff", "=&&=", "access_token=", "access_token=x"])
    annotation = get_type_hints(route.handler).get("query")
    if not (isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)):
        return mostly(st.just(""), nonsense)
    pairs = []
    for field in msgspec.structs.fields(annotation):
        pair = _pair(field.encode_name, types.type_info(field.type), known)
        nothing = st.just("")
        pairs.append(mostly(pair, nothing) if field.required else st.one_of(nothing, pair))
    honest = st.tuples(*pairs)
    return mostly(honest.map(lambda chosen: "&".join(filter(None, chosen))), nonsense)


def paths(route: Route, known: Known) -> st.SearchStrategy[str]:
    """Paths for a route; a variable segment is mostly one of the `known` values, by its name."""
    segments = []
    for segment in route.path.split("/"):
        name = segment.strip("{}")
        if not segment.startswith("{"):
            segments.append(st.just(segment))
        elif name == "event_type":
            segments.append(mostly(st.sampled_from(EVENT_TYPES), _segment))
        else:
            segments.append(mostly(st.just(quote(known.get(name, "x"), safe="")), _segment))
    return st.tuples(*segments).map("/".join)


def objects(known: Known) -> st.SearchStrategy[Any]:
    """JSON objects with the keys that events have and any values."""
    return st.dictionaries(
        mostly(st.sampled_from(KEYS), hostile_text), st.one_of(_text(known), any_json), max_size=6
    )


def value_of(kind: types.Type, known: Known) -> st.SearchStrategy[Any]:
    """Values of the type of a handler's parameter, some of them of another type."""
    return mostly(_right_value_of(kind, known), any_json)


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()


_no_honest_body = st.one_of(st.just(b"{}"), any_json.map(_encode), not_json)
_segment = st.one_of(
    hostile_text.filter(lambda text: len(text) < 400).map(
        lambda text: quote(text.encode(errors="surrogatepass"), safe="")
    ),
    st.binary(max_size=6).map(lambda raw: quote_from_bytes(raw, safe="")),
)


def _text(known: Known) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from([*known.values(), *EVENT_TYPES]), hostile_text)


def _right_value_of(kind: types.Type, known: Known) -> st.SearchStrategy[Any]:
    if isinstance(kind, types.StructType):
        members = {field.encode_name: _member(field, known) for field in kind.fields}
        optional = {field.encode_name for field in kind.fields if not field.required}
        return st.fixed_dictionaries(
            {name: value for name, value in members.items() if name not in optional},
            optional={name: value for name, value in members.items() if name in optional},
        )
    if isinstance(kind, types.UnionType):
        return st.one_of([_right_value_of(member, known) for member in kind.types])
    if isinstance(kind, types.ListType | types.SetType | types.VarTupleType):
        return st.lists(value_of(kind.item_type, known), max_size=3)
    if isinstance(kind, types.DictType):
        keys = st.one_of(st.sampled_from(KEYS), _text(known))
        return st.dictionaries(keys, value_of(kind.value_type, known), max_size=6)
    if isinstance(kind, types.LiteralType):
        return st.sampled_from(kind.values)
    simple: dict[type[types.Type], st.SearchStrategy[Any]] = {
        types.StrType: _text(known),
        types.IntType: hostile_number,
        types.FloatType: hostile_number,
        types.BoolType: st.booleans(),
        types.NoneType: st.none(),
    }
    return simple.get(type(kind), objects(known))


def _member(field: types.Field, known: Known) -> st.SearchStrategy[Any]:
    if field.encode_name in known:
        return mostly(st.just(known[field.encode_name]), value_of(field.type, known))
    return value_of(field.type, known)


def _pair(name: str, kind: types.Type, known: Known) -> st.SearchStrategy[str]:
    if "timeout" in name:
        right: st.SearchStrategy[str] = st.sampled_from(["0", str(LONGEST_WAIT_MS)])
        wrong: st.SearchStrategy[str] = st.sampled_from(["", "x", "-1", "1.5", "%00"])
    elif name in known:
        right, wrong = st.just(_in_query(known[name])), _segment
    else:
        right = st.one_of(
            _right_value_of(kind, known).map(_in_query),
            st.sampled_from(["b", "f", "0", "10", "-5", str(2**70), "true", "%7B%7D", "s1"]),
            objects(known).map(_in_query),
        )
        wrong = _segment
    return mostly(right, wrong).map(lambda value: f"{name}={value}")


def _in_query(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return quote(text.encode(errors="surrogatepass")[:1_000], safe="")
