"""Invalid PDUs of other servers: none raises an unexpected exception or blocks a room."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.protocol.events import Event, InvalidEvent
from homeserver.rooms.inbound.event_checks import EventsMissing
from tests.rooms.inbound.replica import ALICE, BOB, CAROL, Graph

TYPES = (
    "m.room.create",
    "m.room.member",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.third_party_invite",
    "m.room.history_visibility",
    "m.room.redaction",
    "m.room.aliases",
    "m.room.message",
)
NAMES = (
    "membership",
    "third_party_invite",
    "signed",
    "mxid",
    "token",
    "signatures",
    "join_rule",
    "allow",
    "users",
    "events",
    "join_authorised_via_users_server",
    "notifications",
    "ban",
    "invite",
    "kick",
    "redact",
    "state_default",
    "users_default",
    "events_default",
    "public_key",
    "public_keys",
    "redacts",
    "creator",
    "additional_creators",
    "room_version",
    "m.federate",
    "history_visibility",
    "m.relates_to",
    "event_id",
    "rel_type",
    "key",
    "aliases",
    "type",
)
VALUES = ("join", "leave", "invite", "ban", "knock", "public", "restricted", "m.annotation", "1")

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-200, 200),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([*VALUES, ALICE, BOB, CAROL, "two.example", "12", "$a:one.example"]),
)
values = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*NAMES, BOB]) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
contents = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), values, max_size=6)
state_keys = st.one_of(
    st.none(), st.just(""), st.sampled_from([ALICE, BOB, "token", "two.example"]), st.text()
)
fields = st.dictionaries(
    st.sampled_from(["redacts", "depth", "origin_server_ts", "hashes", "signatures", "prev_events"])
    | st.sampled_from(["auth_events", "unsigned", "origin", "room_id", "sender", "membership"])
    | st.text(max_size=3),
    values,
    max_size=2,
)
JUNK = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])


def parse(graph: Graph, data: st.DataObject, after: Event) -> Event | None:
    """The event of a sender with nearly all power, if the PDU is one at all."""
    event_type = data.draw(st.sampled_from(TYPES))
    by = data.draw(st.sampled_from([ALICE, BOB, CAROL]))
    state_key = data.draw(state_keys)
    honest = graph.make("m.room.member", by, {"membership": "join"}, by, after=[after])
    pdu: dict[str, Any] = {**honest.pdu, "type": event_type, "content": data.draw(contents)}
    if event_type != "m.room.member" or data.draw(st.booleans()):
        plain_event = graph.make("m.room.message", by, {}, after=[after])
        pdu["auth_events"] = plain_event.pdu["auth_events"]
    if state_key is None:
        del pdu["state_key"]
    else:
        pdu["state_key"] = state_key
    if data.draw(st.integers(0, 3)) == 0:
        pdu |= data.draw(fields)
    if pdu.get("room_id", graph.room.room_id) != graph.room.room_id:
        pdu["room_id"] = graph.room.room_id
    if "event_id" in pdu:
        pdu["event_id"] = f"$junk{len(graph.events)}:two.example"
    try:
        return Event.from_pdu(graph.room.version, pdu)
    except InvalidEvent:
        return None


@JUNK
@given(st.sampled_from(["1", "3", "6", "8", "10", "11", "12"]), st.data())
def test_invalid_pdu_is_refused_or_harmless(version: str, data: st.DataObject) -> None:
    """With any PDUs the room's creator can continue, and branches merge."""
    graph = Graph(version)
    graph.public()
    graph.join(BOB)
    graph.levels(users={ALICE: 100, BOB: 99})
    for _ in range(data.draw(st.integers(1, 4))):
        event = parse(graph, data, data.draw(st.sampled_from(graph.events[-3:])))
        if event is None or event.room_id != graph.room.room_id:
            continue
        try:
            graph.receive(event)
        except EventsMissing:
            continue
        graph.events.append(event)
        status = graph.stored(event).status
        for reason in (status.rejected, status.soft_failed):
            assert reason is None or reason.startswith("rule ")
        # Clients and the database get only encodable values.
        assert graph.stored(event).client_json(0, room_id=True)
        assert Event.from_json(event.version, event.json, event.event_id) == event
    accepted = [each for each in graph.events[-4:] if graph.stored(each).status.rejected is None]

    merged = graph.say(ALICE, after=accepted)

    status = graph.stored(merged).status
    assert status.rejected is None or "rule" in status.rejected
    assert graph.state == graph.shown_state
    assert graph.state["m.room.create", ""] == graph.create.event_id
