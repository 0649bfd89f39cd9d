"""Subscriptions to sliding sync over a WebSocket, on a real socket of another project's library."""

import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.plain_client import CLIENT, User, register
from tests.clients.stream import WAIT_SECONDS, Stream
from tests.support.process import SHARED_SECRET, running_server
from tests.support.refused import Refused
from tests.sync.sliding.sliding_model import SlidingModel

PATH = "/_matrix/client/v4/sync"
EVERYTHING = {"include": [{}]}


class SlidingClient:
    """A client that keeps what one connection sends, and acknowledges it."""

    def __init__(self, stream: Stream, conn_id: str = "list", **body: Any) -> None:
        self.stream = stream
        self.conn_id = conn_id
        self.model = SlidingModel()
        self.bodies: list[str] = []
        self.body: dict[str, Any] = {"lists": {"all": window()}} | body

    def subscribe(self, **body: Any) -> Any:
        """Subscribe from where the client is, and acknowledge the first response."""
        response = self.call(subscribe=True, **body)["result"]
        self.take(response)
        self.acknowledge()
        return response

    def call(self, **body: Any) -> Any:
        """The response frame of a call from where the client is."""
        self.body |= body
        position = {} if self.model.pos is None else {"pos": self.model.pos}
        params = {**self.body, "conn_id": self.conn_id, **position}
        return self.stream.call("sliding_sync", **params)

    def next(self, *, acknowledge: bool = True) -> Any:
        """The next frame."""
        frame = self.stream.sliding(self.conn_id)
        assert frame["conn_id"] == self.conn_id
        self.take(frame)
        if acknowledge:
            self.acknowledge()
        return frame

    def take(self, response: Any) -> None:
        self.model.apply(response)
        for room in response["rooms"].values():
            events = room.get("timeline", ())
            self.bodies += [each["content"]["body"] for each in events if is_message(each)]

    def acknowledge(self) -> None:
        response = self.stream.call("ack", conn_id=self.conn_id, pos=self.model.pos)
        assert response["result"] == {}

    def until(self, body: str) -> None:
        """Take frames up to that with a message."""
        while body not in self.bodies:
            self.next()


def window(end: int = 19, **room: Any) -> dict[str, Any]:
    """A list of the rooms up to an index."""
    return {"range": [0, end], "timeline_limit": 10, "required_state": EVERYTHING} | room


def is_message(event: Any) -> bool:
    return bool(event["type"] == "m.room.message")


@pytest.fixture
def stream(alice: User, room: str) -> Iterator[Stream]:
    """Alice's socket, for sliding sync only."""
    with Stream(alice, updates="false") as opened:
        yield opened


def test_responses_follow_without_a_request(stream: Stream, bob: User, room: str) -> None:
    """A client is sent what is new, each time in one small frame."""
    client = SlidingClient(stream)
    first = client.subscribe()
    bob.send(room, "one", "t1")
    second = client.next()
    bob.send(room, "two", "t2")
    third = client.next()

    assert first["rooms"][room]["initial"]
    assert [second["rooms"][room]["num_live"], third["rooms"][room]["num_live"]] == [1, 1]
    assert client.bodies == ["one", "two"]
    assert stream.is_quiet


def test_socket_without_updates_is_quiet(stream: Stream, bob: User, room: str) -> None:
    """A client of sliding sync does not receive all of its rooms beside it."""
    bob.send(room, "one", "t1")
    filtered = stream.call("filter", filter={})
    acknowledged = stream.call("ack", next_batch="s1")
    bob.send(room, "two", "t2")

    assert stream.call("ping")["result"] == {}
    assert (filtered["result"], acknowledged["result"]) == ({}, {})
    assert stream.is_quiet


def test_nothing_is_queued_before_an_acknowledgement(stream: Stream, bob: User, room: str) -> None:
    """What happens while a response is on its way comes in the next one."""
    client = SlidingClient(stream)
    client.subscribe()
    bob.send(room, "one", "t1")
    client.next(acknowledge=False)
    for number in range(3):
        bob.send(room, f"more {number}", f"m{number}")
    stream.call("ping")
    assert stream.is_quiet

    client.acknowledge()
    frame = client.next()

    assert client.bodies == ["one", "more 0", "more 1", "more 2"]
    assert frame["rooms"][room]["num_live"] == 3


def test_connections_of_a_socket_are_separate(
    stream: Stream, alice: User, bob: User, room: str
) -> None:
    """A client has a connection for its list, and another one for the room that is open."""
    other = bob.create_room(preset="public_chat")
    alice.join(other)
    opened = {"timeline_limit": 5, "required_state": {}}
    by_list = SlidingClient(stream)
    by_room = SlidingClient(stream, "room", lists={}, room_subscriptions={other: opened})
    by_list.subscribe()
    by_room.subscribe()

    bob.send(room, "for the list", "t1")
    bob.send(other, "for both", "t2")
    by_list.until("for both")
    by_room.until("for both")

    assert by_list.bodies == ["for the list", "for both"]
    assert by_room.bodies == ["for both"]


def test_client_asks_for_more(stream: Stream, alice: User, bob: User, room: str) -> None:
    """A list grows while the client scrolls, and goes on as the larger one."""
    others = [alice.create_room() for _ in range(3)]
    client = SlidingClient(stream, lists={"all": window(1)})
    first = client.subscribe()
    second = client.subscribe(lists={"all": window(9)})
    bob.send(room, "hello", "t1")
    client.until("hello")

    assert first["rooms"].keys() == set(others[1:])
    assert second["rooms"].keys() == {room, others[0]}
    assert stream.is_quiet


def test_unread_frame_is_covered_by_a_later_call(stream: Stream, bob: User, room: str) -> None:
    """A frame that crosses with a call is ignored, and its result has the same."""
    client = SlidingClient(stream)
    client.subscribe()
    bob.send(room, "crossing", "t1")
    crossing = stream.sliding("list")

    response = client.subscribe(lists={"all": window(30)})

    assert crossing["rooms"].keys() == response["rooms"].keys() == {room}
    assert client.bodies == ["crossing"]


def test_wrong_acknowledgements_are_refused(stream: Stream) -> None:
    """A client learns that it acknowledges something else than it was sent last."""
    client = SlidingClient(stream)
    first = client.call(subscribe=True)["result"]["pos"]

    unknown = stream.call("ack", conn_id="list", pos="s1-1")
    other = stream.call("ack", conn_id="other", pos=first)
    nothing = stream.call("ack", conn_id="list")
    once = stream.call("ack", conn_id="list", pos=first)
    twice = stream.call("ack", conn_id="list", pos=first)

    for response in (unknown, other, twice):
        assert response["error"]["errcode"] == "M_UNKNOWN_POS"
    assert nothing["error"]["errcode"] == "M_BAD_JSON"
    assert once["result"] == {}


def test_request_elsewhere_ends_the_subscription(
    stream: Stream, alice: User, bob: User, room: str
) -> None:
    """Two requests cannot share a connection: the older one learns of it."""
    client = SlidingClient(stream)
    client.subscribe()
    body = {**client.body, "conn_id": "list", "pos": client.model.pos, "timeout": 0}
    alice.request("POST", PATH, body)
    ended = stream.sliding("list")
    bob.send(room, "hello", "t1")
    stream.call("ping")

    assert ended["error"]["errcode"] == "IO.HOMESERVER.STREAM.M_REPLACED"
    assert stream.is_quiet
    client.subscribe()
    assert client.bodies == ["hello"]


def test_call_without_subscribe_ends_the_subscription(stream: Stream, bob: User, room: str) -> None:
    """A client that wants no more frames gets what is new, and no error."""
    client = SlidingClient(stream)
    client.subscribe()
    response = client.call(subscribe=False)["result"]
    bob.send(room, "hello", "t1")
    stream.call("ping")

    assert response["rooms"] == {}
    assert stream.is_quiet


def test_subscriptions_of_a_socket_are_few(stream: Stream) -> None:
    """A client cannot have as many as it likes."""
    clients = [SlidingClient(stream, f"c{number}") for number in range(11)]
    for client in clients[:10]:
        client.subscribe()

    refused = clients[10].call(subscribe=True)

    assert refused["error"]["errcode"] == "M_USER_LIMIT_EXCEEDED"
    clients[0].subscribe()
    assert stream.is_quiet


def test_unknown_position_is_refused(stream: Stream) -> None:
    """A client that the server does not know any more begins again."""
    client = SlidingClient(stream)
    client.model.pos = "s1-1"

    refused = client.call(subscribe=True)
    client.model.pos = None

    assert refused["error"]["errcode"] == "M_UNKNOWN_POS"
    assert client.subscribe()["rooms"]


def test_messages_to_the_device_come_once(stream: Stream, alice: User, bob: User) -> None:
    """Keys are sent in frames, and are deleted when the client has them."""
    extensions = {"to_device": {"enabled": True}}
    client = SlidingClient(stream, "keys", lists={}, extensions=extensions)
    client.subscribe()
    seen = []
    for number in range(3):
        messages = {alice.user_id: {alice.device_id: {"n": number}}}
        bob.request("PUT", f"{CLIENT}/sendToDevice/m.test/k{number}", {"messages": messages})
        seen.append(client.next()["extensions"]["to_device"])

    events = [event["content"]["n"] for each in seen for event in each["events"]]
    assert events == [0, 1, 2]
    stream.call("ping")
    assert stream.is_quiet
    body = {"conn_id": "again", "extensions": {"to_device": {"enabled": True}}}
    deadline = time.monotonic() + WAIT_SECONDS
    while alice.request("POST", PATH, body)["extensions"]["to_device"]["events"]:
        assert time.monotonic() < deadline, "received messages are deleted"
        time.sleep(0.1)


def test_killed_socket_resumes_without_loss_or_doubles(
    stream: Stream, alice: User, bob: User, room: str
) -> None:
    """Whenever the network fails, the client goes on from its last stored position."""
    chance = random.Random(7)
    sent: list[str] = []
    client = SlidingClient(stream)
    client.subscribe()
    for number in range(30):
        for _ in range(chance.randrange(3)):
            sent.append(f"message {len(sent)}")
            bob.send(room, sent[-1], f"t{len(sent)}")
        fate = chance.randrange(4)
        if fate == 0 and client.bodies != sent:
            client.next(acknowledge=chance.random() < 0.5)  # perhaps it is lost after that
        elif fate == 1 and client.bodies != sent:
            stream.sliding("list")  # it arrives, but the client has no time to store it
        with_http = number % 7 == 6
        client.stream.close()
        client.stream = Stream(alice, updates="false")
        stream = client.stream
        if with_http:
            body = {**client.body, "conn_id": "list", "pos": client.model.pos, "timeout": 0}
            body.pop("subscribe", None)
            client.take(alice.request("POST", PATH, body))
        client.subscribe()
        assert client.bodies == sent

    client.stream.close()
    assert len(sent) > 10


@pytest.mark.interop
def test_slow_reader_gets_one_response_for_all_that_it_missed(
    alice: User, bob: User, room: str
) -> None:
    """A phone in a tunnel costs the server no memory, and is up to date soon after."""
    count, padding = 200, "x" * 30_000
    with Stream(alice, receive_buffer=65_536, updates="false") as opened:
        client = SlidingClient(opened, lists={"all": window(timeline_limit=3)})
        client.subscribe()
        for number in range(count):
            bob.send(room, f"{number} {padding}", f"t{number}")
        frames = [client.next()]
        while client.bodies[-1] != f"{count - 1} {padding}":
            frames.append(client.next())

        assert len(frames) == 2
        assert frames[1]["rooms"][room]["limited"]
        assert len(client.bodies) == len(set(client.bodies)) <= 6
        assert opened.bytes_received < 10 * len(padding)


@pytest.mark.interop
def test_subscription_resumes_after_a_restart() -> None:
    """An update of the server does not make clients load everything again."""
    with running_server() as server:
        alice = register(server.url, SHARED_SECRET, "alice")
        room = alice.create_room()
        client = SlidingClient(Stream(alice, updates="false"))
        first = client.subscribe()

        server.stop()
        code = client.stream.close_code()
        server.start()
        alice.close()
        alice.send(room, "back again", "t1")
        client.stream = Stream(alice, updates="false")
        second = client.subscribe()
        client.stream.close()

    assert code == 1012
    assert first["rooms"][room]["initial"]
    assert "initial" not in second["rooms"][room]
    assert client.bodies == ["back again"]


def test_token_that_ends_closes_the_socket(stream: Stream, alice: User, room: str) -> None:
    """A device that another one logged out receives nothing more."""
    client = SlidingClient(stream)
    client.subscribe()
    alice.request("POST", f"{CLIENT}/logout", {})

    assert stream.close_code() == 4003
    with pytest.raises(Refused):
        alice.request("POST", PATH, {"conn_id": "list", "pos": client.model.pos})


def test_bad_bodies_are_refused(stream: Stream) -> None:
    """A subscription is checked as a request is."""
    for body in (
        {"lists": {"all": {"timeline_limit": -1, "required_state": {}}}},
        {"lists": 7},
        {"subscribe": "yes"},
        {"conn_id": "x" * 300},
    ):
        text = json.dumps(
            {"id": "x", "method": "sliding_sync", "params": {"subscribe": True} | body}
        )
        stream.send_text(text)
        assert stream.answer("x")["error"]["errcode"] in ("M_INVALID_PARAM", "M_BAD_JSON")
    assert stream.call("ping")["result"] == {}
