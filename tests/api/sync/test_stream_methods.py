"""The methods of the WebSocket have the same effects as their calls over HTTP."""

from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.sync.stream_methods import (
    Call,
    EphemeralMethods,
    EventMethods,
    Methods,
    SocketMethods,
    UserMethods,
)
from homeserver.protocol.errors import (
    BadJson,
    Forbidden,
    GuestAccessForbidden,
    InvalidParam,
    MatrixError,
)
from homeserver.rooms.events.event_draft import Stickiness
from homeserver.web.rate_limits import RateLimits

ALICE = Requester("@alice:example.org", "PHONE")
GUEST = Requester("@1:example.org", "BROWSER", is_guest=True)
ROOM = "!room:example.org"


class Domain:
    """Stands for every object of the domain, and notes how its methods are called."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def method(*args: Any, **options: Any) -> str:
            self.calls.append((name, *args, *options.values()))
            return "$event"

        return method


class Scene:
    """All methods over a domain that only takes notes."""

    def __init__(self) -> None:
        self.domain = domain = Domain()
        anything = cast("Any", domain)
        self.methods = Methods(
            RateLimits(Clock(), {}),
            [
                *SocketMethods().methods(),
                *EventMethods(anything).methods(),
                *EphemeralMethods(anything, anything).methods(),
                *UserMethods(anything, anything).methods(),
            ],
        )

    def call(self, method: str, caller: Requester = ALICE, **params: Any) -> Any:
        """Call a method, which must be done at once; raises what it raises."""
        call = Call(caller, "txn", cast("Any", None))
        encoded = msgspec.json.encode(params)
        done = Deferred.fromCoroutine(cast("Any", self.methods.run(method, call, encoded)))
        results: list[Any] = []
        done.addBoth(results.append)
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]


EVENT = {"room_id": ROOM, "event_type": "m.room.message", "content": {"body": "x"}}


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        (
            "send",
            EVENT,
            ("send_message", ALICE, ROOM, "m.room.message", {"body": "x"}, "txn", None),
        ),
        ("state", EVENT, ("set_state", ALICE, ROOM, "m.room.message", "", {"body": "x"}, None)),
        (
            "send",
            {**EVENT, "sticky_duration_ms": 60_000},
            (
                "send_message",
                ALICE,
                ROOM,
                "m.room.message",
                {"body": "x"},
                "txn",
                Stickiness(60_000),
            ),
        ),
        (
            "state",
            {**EVENT, "sticky_duration_ms": 0},
            ("set_state", ALICE, ROOM, "m.room.message", "", {"body": "x"}, Stickiness(0)),
        ),
        (
            "state",
            {**EVENT, "state_key": "k"},
            ("set_state", ALICE, ROOM, "m.room.message", "k", {"body": "x"}, None),
        ),
        ("redact", {"room_id": ROOM, "event_id": "$e"}, ("redact", ALICE, ROOM, "$e", {}, "txn")),
        (
            "redact",
            {"room_id": ROOM, "event_id": "$e", "reason": "spam"},
            ("redact", ALICE, ROOM, "$e", {"reason": "spam"}, "txn"),
        ),
        (
            "typing",
            {"room_id": ROOM, "typing": True, "timeout": 5},
            ("set", ALICE, ROOM, ALICE.user_id, True, 5),
        ),
        (
            "receipt",
            {"room_id": ROOM, "receipt_type": "m.read", "event_id": "$e", "thread_id": "main"},
            ("mark", ALICE, ROOM, "m.read", "$e", "main"),
        ),
        (
            "receipt",
            {"room_id": ROOM, "receipt_type": "m.read", "event_id": "$e"},
            ("mark", ALICE, ROOM, "m.read", "$e", msgspec.UNSET),
        ),
        (
            "read_markers",
            {"room_id": ROOM, "m.fully_read": "$e", "m.read.private": "$f"},
            ("mark_all", ALICE, ROOM, {"m.fully_read": "$e", "m.read.private": "$f"}),
        ),
        (
            "presence",
            {"presence": "unavailable", "status_msg": "lunch"},
            ("set", ALICE, ALICE.user_id, "unavailable", "lunch"),
        ),
        (
            "account_data",
            {"type": "org.example", "content": {"a": 1}},
            ("set", ALICE.user_id, None, "org.example", {"a": 1}),
        ),
        (
            "account_data",
            {"type": "org.example", "content": {}, "room_id": ROOM},
            ("set", ALICE.user_id, ROOM, "org.example", {}),
        ),
    ],
)
def test_method_reaches_the_domain(
    method: str, params: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    """A call over the socket has the effect of the HTTP call."""
    scene = Scene()

    scene.call(method, **params)

    assert scene.domain.calls == [expected]


@pytest.mark.parametrize("method", ["send", "state"])
def test_new_events_are_answered_with_their_ids(method: str) -> None:
    """A client needs the id to recognise its own message."""
    assert Scene().call(method, **EVENT) == {"event_id": "$event"}


@pytest.mark.parametrize(
    ("method", "params", "error"),
    [
        ("send", {**EVENT, "content": []}, BadJson),
        ("send", {**EVENT, "room_id": 7}, BadJson),
        ("send", {"room_id": ROOM}, BadJson),
        ("send", {**EVENT, "event_type": "m.\0"}, BadJson),
        ("presence", {"presence": "asleep"}, BadJson),
        ("account_data", {"type": "m.fully_read", "content": {}}, BadJson),
        ("account_data", {"type": "", "content": {}}, InvalidParam),
        ("account_data", {"type": "x", "content": {}, "room_id": "room"}, InvalidParam),
        ("account_data", {"type": "x", "content": {}, "user_id": "@bob:example.org"}, Forbidden),
    ],
)
def test_invalid_calls_are_refused_before_the_domain_is_called(
    method: str, params: dict[str, Any], error: type[MatrixError]
) -> None:
    """A client learns what is wrong by the errcode that HTTP would give."""
    scene = Scene()

    with pytest.raises(error):
        scene.call(method, **params)

    assert scene.domain.calls == []


def test_content_may_hold_any_string() -> None:
    """People may write what they like, a NUL too."""
    scene = Scene()

    scene.call("send", **{**EVENT, "content": {"body": "\0"}})

    assert scene.domain.calls[0][4] == {"body": "\0"}


def test_guests_may_send_but_do_no_more() -> None:
    """Guests may do the same as over HTTP."""
    scene = Scene()

    scene.call("send", GUEST, **EVENT)
    with pytest.raises(GuestAccessForbidden):
        scene.call("typing", GUEST, room_id=ROOM, typing=True)

    assert len(scene.domain.calls) == 1
