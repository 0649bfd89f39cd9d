"""Known attacks on the event graph: each ends as a refusal, and changes nothing."""

from typing import Any

import pytest

from homeserver.protocol.authorization.auth_rules import required_signers
from homeserver.protocol.events import Event, InvalidEvent
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.rooms.events.event_draft import EventDraft
from tests.rooms.inbound.replica import ALICE, BOB, CAROL, DAVE, Graph, build

MALLORY = "@mallory:evil.example"
ALL_VERSIONS = pytest.mark.parametrize("version", list(ROOM_VERSIONS))
RESOLVED_BY_POWER = pytest.mark.parametrize("version", ["2", "6", "11", "12"])


def room(version: str = "11", *members: str) -> Graph:
    graph = Graph(version)
    graph.public()
    for member in members:
        graph.join(member)
    return graph


def refusal(graph: Graph, event: Event) -> str:
    rejected = graph.stored(event).status.rejected
    assert rejected is not None
    assert rejected.startswith("rule ")
    return rejected


def altered(event: Event, **fields: Any) -> dict[str, Any]:
    """An event as another server might send it; its hashes are the caller's to check."""
    return {**event.pdu, **fields}


def receive(graph: Graph, event: Event) -> None:
    graph.receive(event)
    graph.events.append(event)


@RESOLVED_BY_POWER
def test_state_is_not_reset_by_a_join_from_before_everything(version: str) -> None:
    """A branch from before the power levels and bans brings none of the old state back."""
    graph = room(version, BOB)
    old = graph.events[-1]
    graph.levels(users={ALICE: 100, BOB: 50})
    graph.send("m.room.topic", ALICE, {"topic": "local"}, "")
    graph.send("m.room.join_rules", ALICE, {"join_rule": "invite"}, "")
    graph.member(CAROL, "invite", ALICE)
    state = graph.state

    join = graph.join(MALLORY, after=[old])
    for body in range(3):
        graph.say(MALLORY, str(body), after=graph.events[-1:])

    assert graph.stored(join).status.soft_failed is not None
    merged = graph.say(ALICE, after=[graph.events[-5], graph.events[-1]])
    after = graph.state_at(graph.stored(merged).state_after)
    for key, event_id in state.items():
        assert after[key] == event_id
    assert graph.shown_state == graph.state


@RESOLVED_BY_POWER
def test_power_is_not_taken_by_levels_that_were_hidden(version: str) -> None:
    """Levels that a demoted moderator kept back on a branch do not outlive the demotion."""
    graph = room(version, BOB)
    graph.levels(users={ALICE: 100, BOB: 75})
    before = graph.events[-1]
    demotion = graph.levels(users={ALICE: 100})

    hidden = graph.levels(BOB, users={ALICE: 100, BOB: 75, MALLORY: 75}, after=[before])
    graph.join(MALLORY, after=[hidden])
    merged = graph.say(ALICE, after=[demotion, graph.events[-1]])

    assert graph.stored(hidden).status.soft_failed is not None
    state = graph.state_at(graph.stored(merged).state_after)
    assert state["m.room.power_levels", ""] == demotion.event_id
    assert graph.state["m.room.power_levels", ""] == demotion.event_id


@ALL_VERSIONS
def test_greatest_depth_does_not_stop_the_room(version: str) -> None:
    """After an event that claims the greatest depth, users can still send."""
    graph = room(version, BOB)
    deepest = ROOM_VERSIONS[version].max_depth

    far = graph.say(BOB, depth=deepest)
    (local_event,), _ = graph.writer.append(_drafts(ALICE))
    graph.publish()

    assert graph.stored(far).position is not None
    assert local_event.event.depth == deepest
    assert graph.extremities == {local_event.event.event_id}


@ALL_VERSIONS
def test_depth_that_overflows_is_invalid(version: str) -> None:
    """An integer that the room version does not allow is dropped at once."""
    graph = room(version, BOB)
    event = graph.make("m.room.message", BOB, {"body": "deep"})
    row = ROOM_VERSIONS[version]

    for depth in (row.max_depth + 1, -1, 1.5, "7", True, None):
        with pytest.raises(InvalidEvent):
            Event.from_pdu(row, altered(event, depth=depth))
    Event.from_pdu(row, altered(event, depth=row.max_depth))


@ALL_VERSIONS
def test_auth_events_that_do_not_authorise_are_refused(version: str) -> None:
    """Rule 3.2: an event shows exactly what it draws its right from."""
    graph = room(version, BOB, CAROL)
    topic = graph.send("m.room.topic", ALICE, {"topic": "fine"}, "")
    cited = graph.auth_events("m.room.message", BOB, {}, None, graph.events[-1:])

    assert "authorise" in refusal(graph, graph.say(BOB, auth=[*cited, topic]))
    carols = graph.events[-3]
    assert carols.state_key == CAROL
    assert "authorise" in refusal(graph, graph.say(BOB, auth=[*cited, carols]))


@ALL_VERSIONS
def test_two_auth_events_of_a_kind_are_refused(version: str) -> None:
    """Rule 3.1: a sender cannot choose between two power levels."""
    graph = room(version, BOB)
    old = graph.events[2]
    assert old.type == "m.room.power_levels"
    graph.levels(users={ALICE: 100, BOB: 10})
    cited = graph.auth_events("m.room.message", BOB, {}, None, graph.events[-1:])

    assert "two auth events" in refusal(graph, graph.say(BOB, auth=[*cited, old]))


@ALL_VERSIONS
def test_forged_power_levels_give_no_power(version: str) -> None:
    """Power levels that their sender could not set are rejected, with the events that cite them."""
    graph = room(version, BOB)
    newest, state = graph.extremities, graph.state

    forged = graph.levels(BOB, users={ALICE: 0, BOB: 100})
    refusal(graph, forged)
    cited = graph.auth_events("m.room.topic", BOB, {}, "", graph.events[-1:])
    cited = [each for each in cited if each.type != "m.room.power_levels"]
    refusal(graph, graph.send("m.room.topic", BOB, {"topic": "b"}, "", auth=[*cited, forged]))

    assert (graph.extremities, graph.state) == (newest, state)


@ALL_VERSIONS
def test_auth_events_of_another_room_are_refused(version: str) -> None:
    """Rule 3.5: power in another room gives no power here."""
    graph, other_graph = room(version), room(version, MALLORY)
    theirs = other_graph.events[-1]
    graph.db.other_rooms[theirs.event_id] = [2]
    cited = [each for each in graph.events if each.type != "m.room.member"][:2]
    if not ROOM_VERSIONS[version].create_in_auth_events:
        cited = cited[1:]

    said = graph.say(MALLORY, auth=[*cited, theirs])

    assert "another room" in refusal(graph, said)


@pytest.mark.parametrize("version", ["1", "2"])
def test_same_event_id_in_two_rooms_is_two_events(version: str) -> None:
    """Servers chose their event ids, and one choice must not shadow another room's event."""
    graph, other_graph = room(version, BOB), room(version, BOB)
    theirs = other_graph.say(BOB)
    graph.db.other_rooms[theirs.event_id] = [2]
    local_event = graph.make("m.room.message", BOB, {"body": "the same id"})
    same = Event.from_pdu(local_event.version, {**local_event.pdu, "event_id": theirs.event_id})

    receive(graph, same)

    assert graph.stored(same).event.content == {"body": "the same id"}
    assert graph.extremities == {theirs.event_id}


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("field", ["prev_events", "auth_events"])
def test_event_that_cites_itself_is_invalid(version: str, field: str) -> None:
    """A sender who chooses event ids could otherwise authorise an event by itself."""
    graph = room(version, BOB)
    event = graph.make("m.room.message", BOB, {"body": "me"})
    cited = [*event.pdu[field], [event.event_id, {"sha256": ""}]]

    with pytest.raises(InvalidEvent):
        Event.from_pdu(event.version, altered(event, **{field: cited}))


@pytest.mark.parametrize("version", ["8", "9", "10", "11", "12"])
def test_restricted_join_needs_the_signature_of_the_authorising_server(version: str) -> None:
    """Without it, any user could claim that a local user authorised their join."""
    graph = room(version)
    content = {"membership": "join", "join_authorised_via_users_server": ALICE}

    join = graph.make("m.room.member", BOB, content, BOB)

    assert required_signers(join) == {"two.example", "one.example"}


@pytest.mark.parametrize("version", ["1", "7"])
def test_older_versions_require_no_such_signature(version: str) -> None:
    """There the field means nothing, and must not prevent a join."""
    graph = room(version)
    content = {"membership": "join", "join_authorised_via_users_server": ALICE}

    assert required_signers(graph.make("m.room.member", BOB, content, BOB)) == {"two.example"}


@pytest.mark.parametrize("version", ["8", "9", "10", "11", "12"])
def test_restricted_join_by_a_user_who_could_not_invite_is_refused(version: str) -> None:
    """The named member must be joined and have the power to invite."""
    graph = room(version, DAVE)
    rule = {"join_rule": "restricted", "allow": []}
    graph.send("m.room.join_rules", ALICE, rule, "")
    users = {} if version == "12" else {ALICE: 100}
    graph.send("m.room.power_levels", ALICE, {"users": users, "invite": 50}, "")
    newest = graph.events[-1]

    for authorising in (DAVE, CAROL, None, 5, "nobody", ["@"]):
        content = {"membership": "join", "join_authorised_via_users_server": authorising}
        refusal(graph, graph.send("m.room.member", BOB, content, BOB, after=[newest]))
    content = {"membership": "join", "join_authorised_via_users_server": ALICE}
    join = graph.send("m.room.member", BOB, content, BOB, after=[newest])

    assert graph.stored(join).position is not None


@ALL_VERSIONS
@pytest.mark.parametrize("number", [0.5, 1e400, 2**53, -(2**53), 2**64, 10**30, float("nan")])
def test_numbers_outside_of_canonical_json(version: str, number: float) -> None:
    """New rooms have integers up to 2^53 only; old ones carry what was ever sent to them."""
    graph = room(version, BOB)
    row = ROOM_VERSIONS[version]
    event = graph.make("m.room.message", BOB, {"body": "number"})
    pdu = altered(event, content={"body": "number", "n": number})
    is_json = number == number and abs(number) != float("inf")

    if row.strict_canonical_json or not is_json:
        with pytest.raises(InvalidEvent):
            Event.from_pdu(row, pdu)
        return
    if row.event_id_domain_must_sign:
        pdu["event_id"] = "$number:two.example"
    received = Event.from_pdu(row, pdu)
    receive(graph, received)

    assert graph.stored(received).position is not None
    assert Event.from_json(row, received.json).content["n"] == number
    assert graph.stored(received).client_json(0, room_id=True)


def test_room_of_version_12_is_named_by_its_create_event() -> None:
    """Its create event has no room id, and no other event can claim to have made the room."""
    graph = room("12", BOB)
    row = ROOM_VERSIONS["12"]
    with_room_id = altered(graph.create, room_id=graph.room.room_id)
    other = Event.from_pdu(row, with_room_id)
    receive(graph, other)

    assert refusal(graph, other).startswith("rule 1")
    assert graph.state["m.room.create", ""] == graph.create.event_id


def test_create_event_among_the_auth_events_of_version_12_is_refused() -> None:
    """The room id says it already."""
    graph = room("12", BOB)
    cited = graph.auth_events("m.room.message", BOB, {}, None, graph.events[-1:])

    assert "authorise" in refusal(graph, graph.say(BOB, auth=[graph.create, *cited]))


def test_creators_of_version_12_have_no_number() -> None:
    """Rule 10.4: a level for a creator would be a way to take power from them later."""
    graph = room("12", BOB)

    levels = graph.send("m.room.power_levels", ALICE, {"users": {ALICE: 100}}, "")

    assert "creator" in refusal(graph, levels)


@pytest.mark.parametrize("creators", ["@a:b", [5], ["nobody"], {}, None])
def test_additional_creators_of_version_12_are_user_ids(creators: object) -> None:
    """Rule 1.4: a create event whose creators are not a list of user ids makes no room."""
    content = {"room_version": "12", "additional_creators": creators}
    create = build("12", None, "m.room.create", ALICE, content, "", [], [], 1, 1)
    graph = Graph("12").replica()
    graph.room.room_id = create.room_id

    stored = graph.receive(create)

    assert stored.status.rejected is not None
    assert stored.status.rejected.startswith("rule 1.4")


@pytest.mark.parametrize("version", ["1", "2", "6", "11"])
@pytest.mark.parametrize("state_key", ["", "other", None])
def test_second_create_event_does_not_take_the_room_over(
    version: str, state_key: str | None
) -> None:
    """The server that the room id names could otherwise give it a new owner at any time."""
    graph = room(version, BOB)
    state, newest = graph.state, graph.extremities
    content = {"room_version": version, "creator": DAVE}
    again = build(
        version, graph.room.room_id, "m.room.create", DAVE, content, state_key, [], [], 1, 9
    )

    receive(graph, again)

    refusal(graph, again)
    assert (graph.state, graph.extremities) == (state, newest)


@ALL_VERSIONS
def test_names_that_hold_nul_are_names(version: str) -> None:
    """JSON can say them, other servers accept them, and the state has to be the same everywhere."""
    graph = room(version, BOB)
    graph.levels(users={ALICE: 100, BOB: 50})

    odd = graph.send("com.example.\0", BOB, {"\0": "\0"}, "a\0b")

    assert graph.stored(odd).position is not None
    assert graph.state["com.example.\0", "a\0b"] == odd.event_id
    unknown = graph.send("m.room.\0", CAROL, {"membership": "\0" * 1000}, "\0")
    assert "\0" not in refusal(graph, unknown)
    assert len(refusal(graph, unknown)) < 400


@ALL_VERSIONS
def test_names_that_are_too_long_are_no_event(version: str) -> None:
    """The limits count bytes, in old versions codepoints, and no index has to hold more."""
    graph = room(version, BOB)
    row = ROOM_VERSIONS[version]
    event = graph.make("m.room.topic", BOB, {}, "")
    most = 255 if row.limits_ids_by_codepoints else 127

    for name in ("type", "state_key"):
        Event.from_pdu(row, altered(event, **{name: "ü" * most}))
        for text in ("x" * 256, "ü" * (most + 1), "\0" * 256):
            with pytest.raises(InvalidEvent):
                Event.from_pdu(row, altered(event, **{name: text}))


@ALL_VERSIONS
@pytest.mark.parametrize("membership", [None, 5, [], {}, ["join"], {"join": 1}, "", "owner"])
def test_unknown_membership_is_refused(version: str, membership: object) -> None:
    """Rule 5: a membership that is not understood changes nothing."""
    graph = room(version, BOB)
    state = graph.state

    odd = graph.send("m.room.member", BOB, {"membership": membership}, BOB)

    assert refusal(graph, odd)
    assert graph.state == state


@ALL_VERSIONS
@pytest.mark.parametrize("odd", [None, "", "50", [], [1], {}, True, {"users": 1}])
@pytest.mark.parametrize("field", ["users", "events", "users_default", "ban", "notifications"])
def test_absurd_power_levels_are_refused_or_mean_nothing(
    version: str, odd: object, field: str
) -> None:
    """With any levels the room remains usable, and its creator keeps control of it."""
    graph = room(version, BOB)
    users = {} if version == "12" else {ALICE: 100}

    levels = graph.send("m.room.power_levels", ALICE, {"users": users, field: odd}, "")

    status = graph.stored(levels).status
    assert status.rejected is None or status.rejected.startswith("rule ")
    if field != "users":
        assert graph.stored(graph.say(ALICE)).position is not None


def _drafts(sender: str) -> list[EventDraft]:
    return [EventDraft("m.room.message", sender, {"body": "on we go"})]
