"""Push rules: which rule counts, and the effect of the predefined ones."""

import time
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from homeserver.protocol.errors import InvalidParam, NotFound
from homeserver.protocol.events import Event
from homeserver.protocol.power_levels import PowerLevels
from homeserver.protocol.push_rules.conditions import EvaluationContext, compile_condition
from homeserver.protocol.push_rules.evaluation import CompiledRules, Outcome
from homeserver.protocol.push_rules.rule_set import (
    KINDS,
    NoSuchNeighbour,
    PushRule,
    RuleSet,
    parse_rule_set,
)
from tests.protocol.authorization.auth_builders import (
    ALICE,
    BOB,
    CAROL,
    create,
    event,
    invite,
    join,
)

DEFAULT = RuleSet()
HIGHLIGHT = {"set_tweak": "highlight"}


def rule(rule_id: str, *actions: Any, **fields: Any) -> PushRule:
    return PushRule(rule_id, default=False, enabled=True, actions=list(actions), **fields)


def say(body: str = "hello", *, by: str = ALICE, **content: Any) -> Event:
    content = {"msgtype": "m.text", "body": body, **content}
    return event("m.room.message", by=by, content=content)


def outcome(
    event: Event,
    rules: RuleSet = DEFAULT,
    *,
    user: str = BOB,
    joined: int = 3,
    name: str | None = None,
) -> Outcome:
    levels = PowerLevels(create(by=CAROL), {"users": {ALICE: 50}})
    return (
        CompiledRules(rules).evaluate(EvaluationContext(event, joined, levels)).for_user(user, name)
    )


def notification(event: Event, rules: RuleSet = DEFAULT, **options: Any) -> str:
    """The notification of a user for an event: none, a silent one, or a loud one."""
    found = outcome(event, rules, **options)
    if not found.notify:
        return "nothing"
    return "loud" if found.highlight else "something"


def test_messages_notify() -> None:
    """The main purpose of push rules."""
    assert notification(say()) == "something"
    assert notification(event("m.room.encrypted", by=ALICE)) == "something"
    assert notification(event("m.call.invite", by=ALICE)) == "something"


def test_conversations_of_two_make_a_sound() -> None:
    """A phone rings for a friend, and not for every message of a group."""
    sound = {"set_tweak": "sound", "value": "default"}

    for message in (say(), event("m.room.encrypted", by=ALICE)):
        assert sound in outcome(message, joined=2).actions
        assert sound not in outcome(message, joined=3).actions


def test_events_for_no_user_do_not_notify() -> None:
    """Bots, edits, reactions and membership changes notify no user."""
    for quiet in (
        say(msgtype="m.notice"),
        say(**{"m.relates_to": {"rel_type": "m.replace", "event_id": "$x"}}),
        event("m.reaction", by=ALICE),
        join(ALICE),
        invite(by=ALICE, of=CAROL),
        event("m.room.server_acl", by=ALICE, state_key=""),
        event("m.room.topic", by=ALICE, state_key=""),
        event("m.room.redaction", by=ALICE),
    ):
        assert notification(quiet) == "nothing", quiet.type


def test_invite_notifies_the_invited_user() -> None:
    """An invite without a notification would be lost."""
    assert notification(invite(by=ALICE, of=BOB)) == "something"


def test_mention_highlights_for_the_mentioned_user() -> None:
    """A mention is louder for the mentioned user, and not for others."""
    mention = say(**{"m.mentions": {"user_ids": [BOB, 5, {}]}})

    assert notification(mention) == "loud"
    assert notification(mention, user=CAROL) == "something"
    assert notification(say("hello bob", **{"m.mentions": {}}), name="bob") == "something"


def test_mention_of_the_room_takes_power() -> None:
    """`@room` is loud only from users with the power level."""
    mention = {"m.mentions": {"room": True}}

    assert notification(say(**mention)) == "loud"
    assert notification(say(by=BOB, **mention), user=ALICE) == "something"
    assert notification(say(**{"m.mentions": {"room": "true"}})) == "something"


def test_mention_in_an_edit_still_counts() -> None:
    """Mentions are checked before edits are silenced."""
    edit = {"m.relates_to": {"rel_type": "m.replace", "event_id": "$x"}}

    assert notification(say(**edit, **{"m.mentions": {"user_ids": [BOB]}})) == "loud"


def test_room_upgrade_is_loud() -> None:
    """All users learn that the room was upgraded; a message of that type is no upgrade."""
    assert notification(event("m.room.tombstone", by=ALICE, state_key="")) == "loud"
    assert notification(event("m.room.tombstone", by=ALICE)) == "nothing"


def test_kinds_are_checked_in_their_order() -> None:
    """Override rules have priority over room rules, and these over the rest."""
    message = say("tea time")
    rules = DEFAULT
    for kind, made in (
        ("underride", rule("under", "underride", conditions=[])),
        ("sender", rule(ALICE, "sender")),
        ("room", rule(message.room_id, "room")),
        ("content", rule("tea", "content", pattern="tea")),
        ("override", rule("over", "override", conditions=[])),
    ):
        rules = rules.put(kind, made)
        assert outcome(message, rules).actions == [kind]


def test_rules_of_ones_own_come_before_the_predefined_ones() -> None:
    """But no rule has priority over the master switch."""
    notices = rule("notices", "notify", conditions=[])
    rules = DEFAULT.put("override", notices)

    assert notification(say(msgtype="m.notice"), rules) == "something"
    rules = rules.change("override", ".m.rule.master", enabled=True)
    assert notification(say(**{"m.mentions": {"user_ids": [BOB]}}), rules) == "nothing"


def test_the_first_of_two_rules_counts() -> None:
    """The example of the specification: tea and time in one sentence."""
    tea, time_ = rule("tea", "notify", pattern="tea"), rule("time", pattern="time")
    message = say("It's time for tea")

    assert notification(message, DEFAULT.put("content", tea).put("content", time_)) == "nothing"
    assert notification(message, DEFAULT.put("content", time_).put("content", tea)) == "something"


def test_disabled_rules_never_match() -> None:
    """A user can keep a rule for later."""
    rules = DEFAULT.put("sender", rule(ALICE)).change("sender", ALICE, enabled=False)

    assert notification(say(), rules) == "something"
    assert notification(say(), rules.change("sender", ALICE, enabled=True)) == "nothing"


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ([], "nothing"),
        (["dont_notify"], "nothing"),
        (["coalesce", "notify"], "something"),
        (["notify", {"set_tweak": "highlight", "value": False}], "something"),
        (["notify", {"set_tweak": "highlight", "value": True}], "loud"),
        ([HIGHLIGHT], "nothing"),
    ],
)
def test_actions_determine_the_loudness(actions: list[Any], expected: str) -> None:
    """Historical actions do nothing."""
    rules = DEFAULT.change("underride", ".m.rule.message", actions=actions)

    assert notification(say(), rules) == expected


def test_display_names_are_looked_for_where_a_rule_asks() -> None:
    """Rules from before there were mentions keep working."""
    rules = DEFAULT.put(
        "override",
        rule("name", "notify", HIGHLIGHT, conditions=[{"kind": "contains_display_name"}]),
    )

    assert notification(say("ask Bob"), rules, name="bob") == "loud"
    assert notification(say("ask Bob"), rules, name="rob") == "something"


def test_rule_with_several_conditions_needs_all_of_them() -> None:
    """All conditions must hold."""
    condition = {"kind": "event_match", "key": "content.msgtype", "pattern": "m.emote"}
    named = {"kind": "contains_display_name"}
    rules = DEFAULT.put(
        "override", rule("both", "notify", HIGHLIGHT, conditions=[named, condition])
    )

    assert notification(say("bob", msgtype="m.emote"), rules, name="bob") == "loud"
    assert notification(say("bob"), rules, name="bob") == "something"


def test_rules_are_evaluated_fast() -> None:
    """A message in a busy room is evaluated for a hundred members in well under a millisecond."""
    rules, message = CompiledRules(DEFAULT), say(**{"m.mentions": {"user_ids": [BOB]}})
    members = [f"@user{number}:one.example" for number in range(100)]
    best = 1.0

    for _ in range(20):
        started = time.perf_counter()
        verdict = rules.evaluate(EvaluationContext(message, 100, None))
        for user in members:
            verdict.for_user(user)
        best = min(best, time.perf_counter() - started)

    assert best < 0.001


kinds = st.sampled_from(KINDS)
names = st.sampled_from(["a", "b", "c", "d"])
changes = st.lists(
    st.one_of(
        st.tuples(st.just("put"), kinds, names, st.none() | names, st.none() | names),
        st.tuples(st.just("delete"), kinds, names),
        st.tuples(st.just("enable"), kinds, names | st.just(".m.rule.message"), st.booleans()),
        st.tuples(st.just("act"), kinds, names | st.just(".m.rule.call"), st.booleans()),
    ),
    max_size=12,
)


def changed(plan: list[Any]) -> RuleSet:
    rules = DEFAULT
    for what, kind, name, *rest in plan:
        try:
            if what == "put":
                made = rule(name, "notify", conditions=[])
                rules = rules.put(kind, made, before=rest[0], after=rest[1])
            elif what == "delete":
                rules = rules.without(kind, name)
            elif what == "enable":
                rules = rules.change(kind, name, enabled=rest[0])
            else:
                rules = rules.change(kind, name, actions=["notify"] if rest[0] else [])
        except (NotFound, NoSuchNeighbour, InvalidParam):
            pass
    return rules


@given(changes)
def test_stored_rules_are_read_as_they_were(plan: list[Any]) -> None:
    """A restart of the server changes no user's rules."""
    rules = changed(plan)

    stored = msgspec.json.decode(msgspec.json.encode(rules.content_for(BOB)))
    read = parse_rule_set(stored)

    assert read.content_for(BOB) == rules.content_for(BOB)
    assert read.content_for(ALICE) == rules.content_for(ALICE)


@given(changes)
def test_rules_of_a_kind_have_ids_of_their_own(plan: list[Any]) -> None:
    """A path identifies one rule."""
    rules = changed(plan)

    for kind in KINDS:
        ids = [each.rule_id for each in rules.rules(kind)]
        assert len(ids) == len(set(ids))


def test_stored_content_of_any_shape_is_read() -> None:
    """Content of an older version locks no user out, and all predefined rules are there."""
    for content in (
        {},
        {"global": 5},
        {"global": {"override": [5, {}, {"rule_id": ".m.rule.old", "default": True}]}},
        {"global": {"content": "none", "room": 5}},
    ):
        assert parse_rule_set(content).content_for(BOB) == DEFAULT.content_for(BOB)


def test_users_with_equal_rules_are_evaluated_together() -> None:
    """Ten thousand members with the predefined rules cost as much as one."""
    alice = parse_rule_set(msgspec.to_builtins(DEFAULT.content_for(ALICE)))
    bob = parse_rule_set(msgspec.to_builtins(DEFAULT.content_for(BOB)))

    assert alice.fingerprint() == bob.fingerprint() == DEFAULT.fingerprint()


_PATTERNS = ("m.room.message", "m.room.*", "*", "M.ROOM.MESSAGE", "m.?oom.member", "", "other")
_ON_TYPES = st.one_of(
    st.builds(
        lambda pattern: {"kind": "event_match", "key": "type", "pattern": pattern},
        st.sampled_from([*_PATTERNS, 7, None, "x" * 1_001]),
    ),
    st.builds(
        lambda value: {"kind": "event_property_is", "key": "type", "value": value},
        st.sampled_from([*_PATTERNS, 7, None]),
    ),
    st.just({"kind": "event_property_contains", "key": "type", "value": "m.room.message"}),
    st.just({"kind": "event_match", "key": "type"}),
)
_ON_OTHERS = st.sampled_from(
    [
        {"kind": "event_match", "key": "sender", "pattern": ALICE},
        {"kind": "event_match", "key": "content.body", "pattern": "hello"},
        {"kind": "room_member_count", "is": "2"},
        {"kind": "unknown"},
    ]
)


@given(
    st.lists(st.lists(_ON_TYPES | _ON_OTHERS, max_size=3), max_size=5),
    st.sampled_from(["m.room.message", "M.ROOM.MESSAGE", "m.room.member", "other", ""]),
    st.sampled_from([2, 3]),
)
@example([[{"kind": "event_match", "key": "type", "pattern": "m.room.*"}]], "M.ROOM.MESSAGE", 2)
@example([[{"kind": "event_property_is", "key": "type", "value": "a"}]], "A", 2)
def test_rules_are_selected_by_type_without_any_effect(
    rules: list[list[dict[str, Any]]], event_type: str, joined: int
) -> None:
    """The law: the first rule counts all conditions of which hold, one by one."""
    subject = event(event_type, by=ALICE, content={"body": "hello"})
    context = EvaluationContext(subject, joined)
    made = tuple(
        rule(f"rule{number}", "notify", f"number {number}", conditions=conditions)
        for number, conditions in enumerate(rules)
    )
    compiled = CompiledRules(RuleSet({"override": made}))
    holding = [
        ["notify", f"number {number}"]
        for number, conditions in enumerate(rules)
        if all(compile_condition(each)(context) is True for each in conditions)
    ]

    for _ in range(2):
        found = list(compiled.evaluate(context).for_user(BOB).actions)
        assert found == holding[0] if holding else not any("number" in str(each) for each in found)
