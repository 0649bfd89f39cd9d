"""Keys that other servers send: any JSON at all gives only keys of the right user and device."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.encryption import remote_keys
from homeserver.protocol.encryption.remote_keys import (
    DeviceListResponse,
    InvalidKeys,
    RemoteDevice,
    parse_claimed_key,
    parse_device,
    parse_device_list,
    parse_device_update,
    parse_queried_keys,
    parse_signing_key_update,
)
from homeserver.protocol.signing.unpadded_base64 import encode_base64

PUBLIC_KEY = encode_base64(bytes(32))
USER, OTHER = "@alice:there.example", "@bob:there.example"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["keys", "usage", "user_id", "device_id", "prev_id", "stream_id", "D"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def cross_signing_key(**members: Any) -> dict[str, Any]:
    keys = {f"ed25519:{PUBLIC_KEY}": PUBLIC_KEY}
    return {"user_id": USER, "usage": ["master"], "keys": keys, **members}


@given(JSON)
def test_nothing_breaks_the_parsers(value: Any) -> None:
    """Each returns keys, or says that there are none."""
    assert isinstance(parse_device(USER, "D", value, value), RemoteDevice | None)
    parse_claimed_key("a", raw(value))
    parse_queried_keys(USER, raw(value), {"master": raw(value)})
    content = value if isinstance(value, dict) else {"prev_id": value}
    for members in (content, {"device_id": "D", "stream_id": 1, **content}):
        with suppress(InvalidKeys):
            parse_device_update(USER, members)
    with pytest.raises(InvalidKeys):
        parse_signing_key_update(USER, {**content, "master_key": {"keys": value}})


@given(st.lists(JSON, max_size=5))
def test_one_bad_device_does_not_hide_the_others(values: list[Any]) -> None:
    """A user can upload anything to a server that checks nothing."""
    devices = [*map(raw, values), raw({"device_id": "GOOD", "keys": {}})]
    found = parse_device_list(USER, DeviceListResponse(USER, 1, devices))

    assert found.keys.devices["GOOD"] == RemoteDevice(None, b"{}")


def test_unsigned_members_are_not_kept() -> None:
    """They are this server's to add."""
    found = parse_device(USER, "D", "Phone", {"x": 1, "unsigned": {"device_display_name": "x"}})

    assert found == RemoteDevice("Phone", b'{"x":1}')


@pytest.mark.parametrize(
    "keys",
    [
        {"user_id": OTHER},
        {"device_id": "E"},
        {"user_id": 1},
        {"algorithms": "x"},
        {"signatures": {USER: 1}},
        {"x": "x" * remote_keys.MAX_DEVICE_KEYS_BYTES},
        [],
    ],
)
def test_keys_of_others_are_dropped(keys: Any) -> None:
    """And so are those that no client could read."""
    assert parse_device(USER, "D", None, keys) is None


def test_a_list_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In number, and in bytes."""
    devices = [raw({"device_id": f"D{n}", "keys": {"x": "x" * 100}}) for n in range(50)]
    monkeypatch.setattr(remote_keys, "MAX_DEVICES", 20)
    few = parse_device_list(USER, DeviceListResponse(USER, 1, devices))
    monkeypatch.setattr(remote_keys, "MAX_LIST_BYTES", 1_000)
    fewer = parse_device_list(USER, DeviceListResponse(USER, 1, devices))

    assert (len(few.keys.devices), len(fewer.keys.devices)) == (20, 9)


def test_unusable_cross_signing_keys_are_dropped() -> None:
    """Those of other users; the signatures of others, which show who has verified whom, too."""
    signatures = {USER: {"ed25519:D": "a"}, OTHER: {"ed25519:k": "b"}}
    keys = {
        "master": raw(cross_signing_key(signatures=signatures)),
        "self_signing": raw(cross_signing_key(usage=["self_signing"], user_id=OTHER)),
    }
    found = parse_queried_keys(USER, raw({}), keys)

    assert found is not None
    assert found.cross_signing.keys() == {"master"}
    shown = msgspec.json.decode(found.cross_signing["master"])
    assert shown["signatures"] == {USER: {"ed25519:D": "a"}}
