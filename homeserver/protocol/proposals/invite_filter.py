"""Invite filtering: the users and servers whose invites a user allows, ignores or blocks.

A blocked invite is refused. An ignored one is accepted for the inviter, and the invited user never
hears of it. The content of `m.invite_permission_config` may have any form, since a client writes
it: a filter that breaks the form, or that would take long to apply, filters nothing.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4155
https://spec.matrix.org/v1.19/client-server-api/#invite-permission
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final

from homeserver.protocol.glob import GlobSet
from homeserver.protocol.identifiers import InvalidIdentifier, parse_server_name

BLOCK: Final = "block"
MAX_TEXT: Final = 255
"""The length of the longest user id and host name, in characters; patterns of longer ones match
none."""
MAX_WILD: Final = 8_192
"""Characters of all patterns of a filter with `?` or several `*`, which take longest to compile."""


class InviteAction(Enum):
    """What becomes of an invite; of several, the last one counts."""

    ALLOW = 0
    IGNORE = 1
    BLOCK = 2


_STEPS: Final = (
    ("allowed", InviteAction.ALLOW),
    ("ignored", InviteAction.IGNORE),
    ("blocked", InviteAction.BLOCK),
)


class InviteFilter:
    """The contents of a user's `m.invite_permission_config`, compiled to check many inviters.

    The user may have several, one for each name of the type: the strictest one counts.
    """

    __slots__ = ("_is_closed", "_steps")

    def __init__(self, contents: Iterable[object]) -> None:
        given = [content for content in contents if isinstance(content, Mapping)]
        self._is_closed = any(content.get("default_action") == BLOCK for content in given)
        self._steps = [steps for content in given if (steps := _steps_of(content))]

    def action(self, inviter: str, ignored: frozenset[str] = frozenset()) -> InviteAction:
        """What becomes of an invite by a user; `ignored` are those of `m.ignored_user_list`."""
        if self._is_closed:
            return InviteAction.BLOCK
        if inviter in ignored:
            return InviteAction.IGNORE
        host = _host_of(inviter)
        actions = (_first_match(steps, inviter, host) for steps in self._steps)
        return max(actions, key=lambda action: action.value, default=InviteAction.ALLOW)


_Step = tuple[bool, GlobSet, InviteAction]  # whether the patterns are of servers


def _first_match(steps: Sequence[_Step], inviter: str, host: str) -> InviteAction:
    for is_server, patterns, action in steps:
        if patterns.matches(host if is_server else inviter):
            return action
    return InviteAction.ALLOW


def _steps_of(content: Mapping[str, Any]) -> list[_Step]:
    """The lists that are not empty, in the order in which they are applied."""
    if content.get("enabled", True) is not True:
        return []
    steps, wild = [], 0
    for kind in ("users", "servers"):
        for name, action in _STEPS:
            patterns = content.get(f"{name}_{kind}", [])
            if not isinstance(patterns, list) or not all(
                isinstance(each, str) for each in patterns
            ):
                return []
            wild += sum(len(each) for each in patterns if "?" in each or each.count("*") > 1)
            if patterns:
                steps.append((kind == "servers", patterns, action))
    if wild > MAX_WILD:
        return []
    return [
        (is_server, _compiled(patterns, is_server=is_server), action)
        for is_server, patterns, action in steps
    ]


def _compiled(patterns: Iterable[str], *, is_server: bool) -> GlobSet:
    # Host names are compared without case, as in access lists of rooms.
    return GlobSet([each.lower() for each in patterns] if is_server else patterns, MAX_TEXT)


def _host_of(user_id: str) -> str:
    server_name = user_id.partition(":")[2]
    try:
        return parse_server_name(server_name).host.lower()
    except InvalidIdentifier:
        return server_name.lower()
