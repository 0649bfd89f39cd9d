"""The WebSocket transport, used through a client library of another project."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.clients.plain_client import CLIENT, User, register
from tests.clients.stream import PATH, Stream, bodies_in, open_socket
from tests.support.process import SHARED_SECRET, ServerProcess, running_server
from tests.support.refused import Refused


@pytest.fixture
def stream(alice: User, room: str) -> Iterator[Stream]:
    """Alice's socket, after its first update."""
    with Stream(alice) as opened:
        opened.update()
        yield opened


@pytest.mark.parametrize("by_subprotocol", [False, True], ids=["header", "subprotocol"])
def test_token_opens_the_socket(alice: User, room: str, *, by_subprotocol: bool) -> None:
    """Browsers cannot set headers, so the server accepts a token in the subprotocol."""
    with Stream(alice, by_subprotocol=by_subprotocol) as opened:
        first = opened.update()

    assert opened.subprotocol == "m.json"
    assert room in first["rooms"]["join"]
    assert first["next_batch"]


def test_unknown_token_is_refused_before_the_upgrade(alice: User) -> None:
    """An ordinary 401 tells the client that it is logged out, as on any endpoint."""
    stranger = User(alice.url, alice.user_id, alice.device_id, "not-a-token")

    with pytest.raises(InvalidStatus) as refused, open_socket(stranger):
        pass

    response = refused.value.response
    assert response.status_code == 401
    assert json.loads(response.body or b"")["errcode"] == "M_UNKNOWN_TOKEN"


def test_no_known_subprotocol_is_refused(alice: User) -> None:
    """A client without a known subprotocol gets an error that says so."""
    with pytest.raises(InvalidStatus) as refused, open_socket(alice, subprotocols=("soap",)):
        pass

    assert refused.value.response.status_code == 400


def test_plain_get_is_asked_to_upgrade(alice: User) -> None:
    """A user who opens the address by hand gets a Matrix error, not a page of HTML."""
    with pytest.raises(Refused) as refused:
        alice.request("GET", PATH)

    assert refused.value.status == 426
    assert refused.value.errcode.startswith("M_")


def test_message_arrives_as_an_update(stream: Stream, bob: User, room: str) -> None:
    """The server pushes new events without a request."""
    bob.send(room, "hello", "t1")

    assert stream.messages_until(room, "hello") == ["hello"]


def test_send_returns_the_event_id_and_shares_transactions_with_http(
    stream: Stream, alice: User, bob: User, room: str
) -> None:
    """A client that loses its socket retries over HTTP without doubling its message."""
    content = {"msgtype": "m.text", "body": "once"}
    response = stream.call("send", "txn-1", room_id=room, event_type="m.room.message",
                         content=content)  # fmt: skip

    event_id = response["result"]["event_id"]
    assert alice.send(room, "once", "txn-1") == event_id
    assert bodies_in(bob.sync(), room) == ["once"]


def test_typing_reaches_the_others(stream: Stream, alice: User, bob: User, room: str) -> None:
    """Typing over the socket is the same as over HTTP."""
    with Stream(bob) as listener:
        listener.update()
        response = stream.call("typing", room_id=room, typing=True, timeout=20_000)
        content = listener.ephemeral(room, "m.typing")

    assert response["result"] == {}
    assert content == {"user_ids": [alice.user_id]}


def test_state_is_set(stream: Stream, bob: User, room: str) -> None:
    """A client can set a topic over the socket."""
    response = stream.call("state", room_id=room, event_type="m.room.topic", state_key="",
                         content={"topic": "sockets"})  # fmt: skip

    assert response["result"]["event_id"].startswith("$")
    topic = bob.request("GET", f"{CLIENT}/rooms/{room}/state/m.room.topic")
    assert topic["topic"] == "sockets"


def test_receipt_reaches_the_others(stream: Stream, alice: User, bob: User, room: str) -> None:
    """The sender of a message gets the receipts that readers send over the socket."""
    event_id = bob.send(room, "read me", "t1")

    with Stream(bob) as listener:
        listener.update()
        stream.call("receipt", room_id=room, receipt_type="m.read", event_id=event_id)
        content = listener.ephemeral(room, "m.receipt")

    assert alice.user_id in content[event_id]["m.read"]


def test_ping_is_answered(stream: Stream) -> None:
    """A client can find out whether the socket is alive."""
    response = stream.call("ping", "p1")

    assert response == {"id": "p1", "result": {}}


def test_unknown_method_is_a_separate_error(stream: Stream) -> None:
    """A newer client learns what an older server lacks, and the socket stays open."""
    response = stream.call("levitate")

    assert response["error"]["errcode"] == "M_UNRECOGNIZED"
    assert stream.call("ping")["result"] == {}


@pytest.mark.parametrize("text", ["{", "", '{"id": "x"', "\ud7ff", "NaN"])
def test_broken_json_is_answered_and_the_socket_stays_open(stream: Stream, text: str) -> None:
    """One bad frame does not cost the client its connection."""
    stream.send_text(text)

    assert stream.answer(None)["error"]["errcode"] == "M_NOT_JSON"
    assert stream.call("ping")["result"] == {}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"room_id": 7, "event_type": "m.room.message", "content": {}},
        {"room_id": "!nowhere:localhost", "event_type": "m.room.message", "content": {}},
        {"room_id": "!nowhere:localhost", "event_type": "m.room.message", "content": []},
    ],
)
def test_bad_parameters_are_refused(stream: Stream, params: dict[str, Any]) -> None:
    """A client gets the errcode for wrong parameters that HTTP would give."""
    response = stream.call("send", **params)

    assert response["error"]["errcode"] in {
        "M_BAD_JSON", "M_MISSING_PARAM", "M_INVALID_PARAM", "M_FORBIDDEN", "M_NOT_FOUND",
    }  # fmt: skip


def test_since_resumes_where_the_socket_was_lost(alice: User, bob: User, room: str) -> None:
    """A reconnecting client gets what it missed, once."""
    with Stream(alice) as opened:
        token = opened.update()["next_batch"]
    for number in range(3):
        bob.send(room, f"missed {number}", f"t{number}")

    with Stream(alice, since=token) as again:
        bodies = again.messages_until(room, "missed 2")

    assert bodies == ["missed 0", "missed 1", "missed 2"]


def test_sync_token_works_on_the_socket_and_back(alice: User, bob: User, room: str) -> None:
    """A client falls back to /sync, and returns, without starting over."""
    token = alice.sync()["next_batch"]
    bob.send(room, "by socket", "t1")
    with Stream(alice, since=token) as opened:
        update = opened.update()
    bob.send(room, "by poll", "t2")

    assert bodies_in(update, room) == ["by socket"]
    assert bodies_in(alice.sync(update["next_batch"]), room) == ["by poll"]


def test_second_socket_of_a_device_replaces_the_first(alice: User, stream: Stream) -> None:
    """A client whose network came back need not wait for its old connection to time out."""
    with Stream(alice) as second:
        second.update()

        assert stream.close_code() == 4001
        assert second.call("ping")["result"] == {}


def test_log_out_closes_the_socket(alice: User, stream: Stream) -> None:
    """A device that another device logged out receives nothing more."""
    alice.request("POST", f"{CLIENT}/logout", {})

    assert stream.close_code() == 4003


@pytest.mark.interop
def test_slow_reader_gets_one_compacted_update(alice: User, bob: User, room: str) -> None:
    """A phone in a tunnel costs the server no memory, and is up to date soon after."""
    count, padding = 400, "x" * 30_000
    with Stream(alice, receive_buffer=65_536) as opened:
        opened.update()
        for number in range(count):
            bob.send(room, f"{number} {padding}", f"t{number}")
        bodies: list[str] = []
        limited = False
        while not bodies or not bodies[-1].startswith(f"{count - 1} "):
            update = opened.update()
            bodies += bodies_in(update, room)
            joined = update.get("rooms", {}).get("join", {})
            limited |= room in joined and joined[room]["timeline"]["limited"]

        assert limited
        assert opened.bytes_received < count * len(padding) * 0.9
        assert len(bodies) == len(set(bodies))


@pytest.mark.interop
def test_restart_closes_with_a_code_and_the_client_resumes() -> None:
    """Clients reconnect after a restart without missing anything."""
    with running_server() as server:
        alice = register(server.url, SHARED_SECRET, "alice")
        room = alice.create_room()
        opened = Stream(alice)
        token = opened.update()["next_batch"]

        server.stop()
        code = opened.close_code()
        server.start()
        alice.close()
        alice.send(room, "back again", "t1")
        with Stream(alice, since=token) as again:
            bodies = again.messages_until(room, "back again")

    assert code == 1012
    assert bodies == ["back again"]


def test_server_is_healthy_after_all_this(server: ServerProcess, alice: User) -> None:
    """The server still responds after the tests above."""
    assert server.is_responding()
    assert alice.sync()["next_batch"]


def test_sliding_sync_is_a_call(alice: User, bob: User, room: str, stream: Stream) -> None:
    """A client that shows a list of rooms can use its socket for everything."""
    rooms = {"range": [0, 9], "timeline_limit": 1, "required_state": {}}
    first = stream.call("sliding_sync", lists={"all": rooms})["result"]
    bob.send(room, "hello", "sliding")

    body = {"lists": {"all": rooms}, "pos": first["pos"], "timeout": 10_000}
    second = stream.call("sliding_sync", **body)["result"]
    unknown = stream.call("sliding_sync", pos="garbage")

    assert first["rooms"][room]["initial"]
    (event,) = second["rooms"][room]["timeline"]
    assert event["content"]["body"] == "hello"
    assert unknown["error"]["errcode"] == "M_UNKNOWN_POS"


def test_waiting_sliding_sync_ends_with_its_socket(alice: User, room: str) -> None:
    """A client whose connection broke begins where it was, over another socket."""
    body = {"conn_id": "c", "lists": {"a": {"timeline_limit": 1, "required_state": {}}}}
    with Stream(alice) as opened:
        opened.update()
        pos = opened.call("sliding_sync", **body)["result"]["pos"]
        waiting = {**body, "pos": pos, "timeout": 60_000}
        opened.send_text(json.dumps({"id": "w", "method": "sliding_sync", "params": waiting}))
    with Stream(alice) as opened:
        opened.update()

        assert opened.call("sliding_sync", **body, pos=pos)["result"]["rooms"] == {}
