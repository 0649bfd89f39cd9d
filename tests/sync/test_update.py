"""Updates as JSON: equal parts are encoded once, and different ones are never mixed up."""

import msgspec

from homeserver.sync.update import MAX_CACHED_SECTIONS, Update

SECTION = b'{"ephemeral":{"events":[]}}'


def test_equal_updates_are_one_object() -> None:
    """A message to a hundred members is put together once."""
    answers: dict[tuple[int, str, bytes], bytes] = {}
    first, second = (Update(7, answers, {"!a:test": SECTION}) for _ in range(2))

    assert first.encode() is second.encode()


def test_updates_that_differ_in_anything_are_not_mixed_up() -> None:
    """No user gets data of another room, position or user."""
    answers: dict[tuple[int, str, bytes], bytes] = {}
    private = msgspec.Raw(b'{"type":"m.tag","content":{}}')
    updates = [
        Update(7, answers, {"!a:test": SECTION}),
        Update(7, answers, {"!b:test": SECTION}),
        Update(8, answers, {"!a:test": SECTION}),
        Update(7, answers, {"!a:test": SECTION, "!b:test": SECTION}),
        Update(7, answers, {"!a:test": SECTION}, account_data=[private]),
        Update(7, answers, {"!a:test": SECTION}, presence=[private]),
        Update(7, answers, {"!a:test": SECTION}, left={"!b:test": SECTION}),
    ]

    encoded = [update.encode() for update in updates]

    assert len(set(encoded)) == len(updates)
    for update, text in zip(updates, encoded, strict=True):
        answer = msgspec.json.decode(text)
        assert answer["next_batch"] == update.next_batch
        assert list(answer["rooms"]["join"]) == list(update.joined)


def test_cached_responses_are_bounded() -> None:
    """A busy server does not fill its memory with responses."""
    answers: dict[tuple[int, str, bytes], bytes] = {}

    for position in range(3 * MAX_CACHED_SECTIONS):
        Update(position, answers, {"!a:test": SECTION}).encode()
    Update(1, answers, {"!a:test": b'"%s"' % (b"x" * 100_000)}).encode()

    assert len(answers) <= MAX_CACHED_SECTIONS
    assert all(len(answer) < 1000 for answer in answers.values())
