"""Updates as JSON: equal updates are encoded once, and different ones never share an encoding."""

from typing import Any

import msgspec

from homeserver.encryption.key_counts import build_key_counts
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sections.device_list_updates import DeviceListUpdate
from homeserver.sync.sync_span import SyncSpan
from homeserver.sync.update import (
    MAX_CACHED_SECTIONS,
    EncodedSections,
    Update,
    events_json,
    join_events,
)

SECTION = b'{"ephemeral":{"events":[]}}'


def update_at(position: int, *cache_and_rooms: Any, **parts: Any) -> Update:
    """An update that ends at a position."""
    return Update(SyncSpan(None, SyncToken(position)), *cache_and_rooms, **parts)


def test_equal_updates_are_encoded_once() -> None:
    """A message to a hundred members is encoded once; each device has its own keys left."""
    cache: EncodedSections = {}
    counts = build_key_counts({"signed_curve25519": 7}, ["signed_curve25519"], 0)
    first = update_at(7, cache, {"!a:test": SECTION})
    second = update_at(7, cache, {"!a:test": SECTION}, key_counts=counts)

    answers = [msgspec.json.decode(update.encode()) for update in (first, second)]

    assert len(cache) == 1
    for answer, number, unused in zip(answers, (0, 7), ([], ["signed_curve25519"]), strict=True):
        assert answer.pop("device_one_time_keys_count") == {"signed_curve25519": number}
        assert answer.pop("device_unused_fallback_key_types") == unused
    assert answers[0] == answers[1]


def test_each_kind_of_section_has_its_place() -> None:
    """An update may have rooms of every membership, or of some, and profiles beside them."""
    rooms = {"!a:test": b'{"a":1}', "!b:test": b'{"b":2}'}
    some = update_at(7, invited=rooms, left={"!c:test": b"{}"})
    every = update_at(
        7, {}, rooms, rooms, rooms, rooms, users={"@a:test": b"[]"}, users_name="users"
    )

    answers = [msgspec.json.decode(update.encode()) for update in (some, every)]

    shown = {"!a:test": {"a": 1}, "!b:test": {"b": 2}}
    assert answers[0]["rooms"] == {"invite": shown, "leave": {"!c:test": {}}}
    assert answers[1]["rooms"] == dict.fromkeys(("join", "invite", "knock", "leave"), shown)
    assert answers[1]["users"] == {"@a:test": []}


def test_updates_that_differ_in_anything_are_not_mixed_up() -> None:
    """No client gets the update of another room, position or user."""
    cache: EncodedSections = {}
    private = msgspec.Raw(b'{"type":"m.tag","content":{}}')
    updates = [
        update_at(7, cache, {"!a:test": SECTION}),
        update_at(7, cache, {"!b:test": SECTION}),
        update_at(8, cache, {"!a:test": SECTION}),
        update_at(7, cache, {"!a:test": SECTION, "!b:test": SECTION}),
        update_at(7, cache, {"!a:test": SECTION}, account_data=[private]),
        update_at(7, cache, {"!a:test": SECTION}, presence=[private]),
        update_at(7, cache, {"!a:test": SECTION}, left={"!b:test": SECTION}),
    ]

    encoded = [update.encode() for update in updates]

    assert len(set(encoded)) == len(updates)
    for update, text in zip(updates, encoded, strict=True):
        response = msgspec.json.decode(text)
        assert response["next_batch"] == update.next_batch
        assert list(response["rooms"]["join"]) == list(update.joined)


def test_equal_changes_of_presence_are_encoded_once() -> None:
    """A change of presence to a hundred members is encoded once."""
    cache: EncodedSections = {}
    events = [msgspec.Raw(b'{"sender":"@%s:b"}' % name) for name in (b"a", b"c")]
    updates = [
        update_at(7, cache, presence=events[:1]),
        update_at(7, cache, presence=events[:1]),
        update_at(7, cache, presence=events[1:]),
        update_at(8, cache, presence=events[:1]),
        update_at(7, cache, presence=events),
        update_at(7, cache, presence=events[:1], to_device=[b"{}"]),
        update_at(7, cache, {"!a:test": SECTION}, presence=events[:1]),
    ]

    texts = [update.encode() for update in updates]

    assert len(cache) == 3
    assert len(set(texts)) == len(updates) - 1
    for update, text in zip(updates, texts, strict=True):
        answer = msgspec.json.decode(text, type=dict[str, Any])
        assert answer["presence"]["events"] == [msgspec.json.decode(e) for e in update.presence]
        assert answer["next_batch"] == update.next_batch


def test_device_lists_have_only_what_is_in_them() -> None:
    """A client that waits for changed users is not woken by an empty list."""
    for changed, left in ((["@a:b"], []), ([], ["@a:b"])):
        update = update_at(7, device_lists=DeviceListUpdate(changed, left, {}))

        lists = msgspec.json.decode(update.encode())["device_lists"]

        assert lists == ({"changed": changed} if changed else {"left": left})


def test_cached_updates_are_bounded() -> None:
    """A busy server does not fill its memory with encoded updates."""
    cache: EncodedSections = {}

    for position in range(3 * MAX_CACHED_SECTIONS):
        update_at(position, cache, {"!a:test": SECTION}).encode()
    update_at(1, cache, {"!a:test": b'"%s"' % (b"x" * 100_000)}).encode()

    assert len(cache) <= MAX_CACHED_SECTIONS
    assert all(len(response) < 1000 for response in cache.values())


def test_lists_of_events_are_joined() -> None:
    """Whether one of them is empty or not."""
    none, one, two = (events_json(each) for each in ([], [b"1"], [b"2", b"3"]))

    assert join_events(none, none) == none
    assert join_events(none, two) == join_events(two, none) == two
    assert join_events(one, two) == events_json([b"1", b"2", b"3"])
