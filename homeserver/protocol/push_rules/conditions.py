"""Conditions of push rules, compiled into functions of events.

Most conditions have the same result for all users in a room. Those that depend on the user return a
test instead, so that an event is evaluated once for all users with the same rules.

A condition of an unknown kind, or one without a member that its kind needs, never matches.

Spec: https://spec.matrix.org/v1.19/client-server-api/#conditions-1
"""

import operator
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

import msgspec

from homeserver.protocol.events import Event
from homeserver.protocol.glob import Glob, WordText
from homeserver.protocol.power_levels import PowerLevels
from homeserver.protocol.property_paths import split_path
from homeserver.protocol.proposals.unstable_names import THREAD_CONDITION
from homeserver.protocol.push_rules.predefined import OWN_USER_ID

BODY: Final = "content.body"
MAX_PATTERN: Final = 1_000  # characters; a longer pattern never matches
_MISSING: Final = object()
_SCALARS: Final = (str, int, bool, type(None))
_MEMBER_COUNT: Final = re.compile(r"(==|<=|>=|<|>)?([0-9]{1,15})")
_COMPARISONS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


class PowerLevelsNeeded(Exception):
    """The result depends on the power levels, and the context has none."""


class ThreadNeeded(Exception):
    """The result depends on the event's thread, and the context does not say whether it has one."""


class ThreadPlace(Enum):
    """Where an event lies, for the users that an evaluation is about."""

    UNKNOWN = "unknown"
    MAIN = "in no thread"
    SUBSCRIBED = "in a thread to which they are subscribed"
    UNSUBSCRIBED = "in another thread"


class EvaluationContext(msgspec.Struct, frozen=True):
    """An event, the number of joined members at that time, and the power levels if loaded."""

    event: Event
    joined_count: int
    levels: PowerLevels | None = None
    thread: ThreadPlace = ThreadPlace.UNKNOWN


UserTest = Callable[[str, str | None], bool]
"""A test whether a condition holds for a user, by their id and their display name in the room."""

Condition = Callable[[EvaluationContext], bool | UserTest]


def compile_condition(condition: Mapping[str, Any]) -> Condition:
    """Compile a condition into a function."""
    compiler = _COMPILERS.get(str(condition.get("kind")))
    return _never if compiler is None else compiler(condition)


def type_test(condition: Mapping[str, Any]) -> Callable[[str], bool] | None:
    """The condition as a function of the event's type, if its result depends on nothing else."""
    if condition.get("key") != "type":
        return None
    kind, pattern, value = (condition.get(name) for name in ("kind", "pattern", "value"))
    if kind == "event_property_is" and isinstance(value, str):
        return lambda event_type: event_type == value
    if kind == "event_match" and isinstance(pattern, str) and len(pattern) <= MAX_PATTERN:
        glob = Glob(pattern.lower())
        return None if pattern == OWN_USER_ID else lambda each: glob.matches(each.lower())
    return None


def cost(condition: Mapping[str, Any]) -> int:
    """The relative cost of a condition: those with a lower cost are evaluated first."""
    return _COSTS.get(str(condition.get("kind")), 0)


def is_value(key: str, value: object) -> Condition:
    """A condition: a property of the event has exactly this value."""
    find = _finder(key)
    kind = type(value)

    def holds(context: EvaluationContext) -> bool:
        found = find(context.event)
        return type(found) is kind and found == value

    return holds


def event_match(condition: Mapping[str, Any]) -> Condition:
    """A property matches a pattern: as a whole, or for the body at word boundaries.

    Case is ignored: the lower-case forms are compared.
    """
    key, pattern = condition.get("key"), condition.get("pattern")
    if not isinstance(key, str) or not isinstance(pattern, str):
        return _never
    find = _finder(key)
    if pattern == OWN_USER_ID:
        return _names_user(find)
    if len(pattern) > MAX_PATTERN:
        return _never
    glob = Glob(pattern.lower())
    matches = glob.matches_words if key == BODY else glob.matches

    def holds(context: EvaluationContext) -> bool:
        found = find(context.event)
        return isinstance(found, str) and matches(found.lower())

    return holds


def _names_user(find: Callable[[Event], object]) -> Condition:
    def holds(context: EvaluationContext) -> bool | UserTest:
        found = find(context.event)
        return isinstance(found, str) and (lambda user_id, _: user_id == found)

    return holds


def event_property_is(condition: Mapping[str, Any]) -> Condition:
    """A property has exactly a value."""
    key, value = condition.get("key"), condition.get("value", _MISSING)
    if not isinstance(key, str) or not isinstance(value, _SCALARS):
        return _never
    return is_value(key, value)


def event_property_contains(condition: Mapping[str, Any]) -> Condition:
    """A property is a list that contains exactly a value."""
    key, value = condition.get("key"), condition.get("value", _MISSING)
    if not isinstance(key, str) or not isinstance(value, _SCALARS):
        return _never
    find = _finder(key)
    kind = type(value)
    if value == OWN_USER_ID:
        return _lists_user(find)

    def holds(context: EvaluationContext) -> bool:
        found = find(context.event)
        return isinstance(found, list) and any(
            type(item) is kind and item == value for item in found
        )

    return holds


def _lists_user(find: Callable[[Event], object]) -> Condition:
    def holds(context: EvaluationContext) -> bool | UserTest:
        found = find(context.event)
        if not isinstance(found, list):
            return False
        users = frozenset(item for item in found if isinstance(item, str))
        return bool(users) and (lambda user_id, _: user_id in users)

    return holds


def contains_display_name(_: Mapping[str, Any]) -> Condition:
    """The body contains the user's display name."""
    find = _finder(BODY)

    def holds(context: EvaluationContext) -> bool | UserTest:
        found = find(context.event)
        if not isinstance(found, str):
            return False
        body = WordText(found.lower())
        return lambda _, name: name is not None and body.contains(name.lower())

    return holds


def room_member_count(condition: Mapping[str, Any]) -> Condition:
    """The room has a number of joined members."""
    wanted = condition.get("is")
    match = _MEMBER_COUNT.fullmatch(wanted) if isinstance(wanted, str) else None
    if match is None:
        return _never
    compare, count = _COMPARISONS[match[1] or "=="], int(match[2])
    return lambda context: compare(context.joined_count, count)


def sender_notification_permission(condition: Mapping[str, Any]) -> Condition:
    """The sender has the power to notify in this way."""
    key = condition.get("key")
    if not isinstance(key, str):
        return _never

    def holds(context: EvaluationContext) -> bool:
        levels = context.levels
        if levels is None:
            raise PowerLevelsNeeded
        return levels.of(context.event.sender) >= levels.notifications(key)

    return holds


def thread_subscription(condition: Mapping[str, Any]) -> Condition:
    """The event lies in a thread to which the user is subscribed, or is not.

    Spec: MSC4306
    """
    subscribed = condition.get("subscribed")
    if not isinstance(subscribed, bool):
        return _never
    wanted = ThreadPlace.SUBSCRIBED if subscribed else ThreadPlace.UNSUBSCRIBED

    def holds(context: EvaluationContext) -> bool:
        if context.thread is ThreadPlace.UNKNOWN:
            raise ThreadNeeded
        return context.thread is wanted

    return holds


_COMPILERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Condition]]] = {
    "event_match": event_match,
    "event_property_is": event_property_is,
    "event_property_contains": event_property_contains,
    "contains_display_name": contains_display_name,
    "room_member_count": room_member_count,
    "sender_notification_permission": sender_notification_permission,
    THREAD_CONDITION: thread_subscription,
}
# Power levels and events of a thread may have to be read from the database.
_COSTS: Final[Mapping[str, int]] = {
    "room_member_count": 1,
    "contains_display_name": 1,
    "sender_notification_permission": 2,
    THREAD_CONDITION: 2,
}


def _never(_: EvaluationContext) -> bool:
    return False


def _finder(path: str) -> Callable[[Event], object]:
    """A function that returns a property of events in the client format."""
    name, *inner = split_path(path)
    if name == "content":
        return _content_finder(inner)
    find = _FIELDS.get(name)
    return _nothing if find is None or inner else find


def _content_finder(names: list[str]) -> Callable[[Event], object]:
    def find(event: Event) -> object:
        value: object = event.content
        for name in names:
            if not isinstance(value, dict):
                return _MISSING
            value = value.get(name, _MISSING)
        return value

    return find


def _state_key(event: Event) -> object:
    return _MISSING if event.state_key is None else event.state_key


def _nothing(_: Event) -> object:
    return _MISSING


_FIELDS: Final[Mapping[str, Callable[[Event], object]]] = {
    "event_id": operator.attrgetter("event_id"),
    "origin_server_ts": operator.attrgetter("origin_server_ts"),
    "room_id": operator.attrgetter("room_id"),
    "sender": operator.attrgetter("sender"),
    "state_key": _state_key,
    "type": operator.attrgetter("type"),
}
