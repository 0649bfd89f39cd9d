"""Actors: users with their devices, who make requests over HTTP, so that tests read like scripts.

A failing method raises `Refused` with the errcode. `request` is for endpoints without a method.
"""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any
from urllib.parse import quote

import msgspec
from treq.client import HTTPClient

from tests.support.refused import Refused

CLIENT = "/_matrix/client/v3"


class Client:
    """A client without an account."""

    token: str | None = None

    def __init__(self, http: HTTPClient, url: str) -> None:
        self._http = http
        self.url = url

    async def request(
        self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None
    ) -> Any:
        """The decoded response; raises `Refused`. `body` is sent as JSON, or as it is if bytes."""
        data = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        response = await self._http.request(
            method, self.url + path, params=query, data=data, headers=headers
        )
        answer = msgspec.json.decode(await response.content())
        if response.code >= 400:
            raise Refused(response.code, answer)
        return answer

    async def get(self, path: str, **query: Any) -> Any:
        """The response to GET below `/_matrix/client/v3`."""
        return await self.request("GET", CLIENT + path, query=query)

    async def put(self, path: str, body: Any) -> Any:
        """The response to PUT below `/_matrix/client/v3`."""
        return await self.request("PUT", CLIENT + path, body)

    async def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """The response to POST below `/_matrix/client/v3`."""
        return await self.request("POST", CLIENT + path, {} if body is None else body, query)

    async def delete(self, path: str) -> Any:
        """The response to DELETE below `/_matrix/client/v3`."""
        return await self.request("DELETE", CLIENT + path)


class Actor(Client):
    """A user with one device."""

    def __init__(
        self, http: HTTPClient, url: str, user_id: str, device_id: str, token: str
    ) -> None:
        super().__init__(http, url)
        self.user_id = user_id
        self.device_id = device_id
        self.token = token
        self._transactions = count(1)

    async def create_room(
        self, *, invite: "list[Actor] | None" = None, public: bool = False, **body: Any
    ) -> str:
        """Create a room; returns its id. Any user may join a public one, but it is not listed."""
        if invite:
            body["invite"] = [actor.user_id for actor in invite]
        if public:
            body["preset"] = "public_chat"
        room_id: str = (await self.post("/createRoom", body))["room_id"]
        return room_id

    async def join(self, room: str, *, via: Sequence[str] = (), **body: Any) -> str:
        """Join a room by id or alias, through the servers `via` if need be; gives its id."""
        path = f"/join/{quote(room)}"
        room_id: str = (await self.post(path, body, via=[*via]))["room_id"]
        return room_id

    async def knock(self, room: str, *, via: Sequence[str] = (), **body: Any) -> None:
        await self.post(f"/knock/{quote(room)}", body, via=[*via])

    async def invite(self, room: str, actor: "Actor", **body: Any) -> None:
        await self._on_room(room, "invite", {"user_id": actor.user_id, **body})

    async def leave(self, room: str, **body: Any) -> None:
        await self._on_room(room, "leave", body)

    async def forget(self, room: str) -> None:
        await self._on_room(room, "forget", {})

    async def kick(self, room: str, actor: "Actor", **body: Any) -> None:
        await self._on_room(room, "kick", {"user_id": actor.user_id, **body})

    async def ban(self, room: str, actor: "Actor", **body: Any) -> None:
        await self._on_room(room, "ban", {"user_id": actor.user_id, **body})

    async def unban(self, room: str, actor: "Actor", **body: Any) -> None:
        await self._on_room(room, "unban", {"user_id": actor.user_id, **body})

    async def send(
        self, room: str, event_type: str, content: Any, *, txn_id: str | None = None
    ) -> str:
        """Send a message event; gives its id."""
        txn_id = txn_id or f"txn{next(self._transactions)}"
        path = f"/rooms/{quote(room)}/send/{quote(event_type, safe='')}/{quote(txn_id, safe='')}"
        event_id: str = (await self.put(path, content))["event_id"]
        return event_id

    async def say(self, room: str, text: str, *, txn_id: str | None = None) -> str:
        """Send a text message; gives its event id."""
        content = {"msgtype": "m.text", "body": text}
        return await self.send(room, "m.room.message", content, txn_id=txn_id)

    async def redact(self, room: str, event_id: str, **body: Any) -> str:
        """Redact an event; gives the redaction's id."""
        path = f"/rooms/{quote(room)}/redact/{quote(event_id, safe='')}"
        answer = await self.put(f"{path}/txn{next(self._transactions)}", body)
        redaction_id: str = answer["event_id"]
        return redaction_id

    async def set_state(self, room: str, event_type: str, content: Any, state_key: str = "") -> str:
        """Set a state event; gives its id."""
        path = f"/rooms/{quote(room)}/state/{quote(event_type, safe='')}/"
        event_id: str = (await self.put(path + quote(state_key, safe=""), content))["event_id"]
        return event_id

    async def state(self, room: str, event_type: str, state_key: str = "") -> Any:
        """The content of a state event."""
        path = f"/rooms/{quote(room)}/state/{quote(event_type, safe='')}/"
        return await self.get(path + quote(state_key, safe=""))

    async def event(self, room: str, event_id: str) -> Any:
        """One event."""
        return await self.get(f"/rooms/{quote(room)}/event/{quote(event_id, safe='')}")

    async def messages(self, room: str, direction: str = "b", **query: Any) -> Any:
        """A page of the room's history; `since` is the parameter `from`."""
        if "since" in query:
            query["from"] = query.pop("since")
        return await self.get(f"/rooms/{quote(room)}/messages", dir=direction, **query)

    async def history(self, room: str) -> list[Any]:
        """All events of the room that one may see, the newest first."""
        page = await self.messages(room, limit=100)
        events: list[Any] = page["chunk"]
        while "end" in page:
            page = await self.messages(room, limit=100, since=page["end"])
            events += page["chunk"]
        return events

    async def full_state(self, room: str) -> dict[tuple[str, str], Any]:
        """The current state events by type and state key."""
        events = await self.get(f"/rooms/{quote(room)}/state")
        return {(event["type"], event["state_key"]): event for event in events}

    async def upgrade(self, room: str, version: str) -> str:
        """Replace a room by one of another version; gives the new id."""
        answer = await self.post(f"/rooms/{quote(room)}/upgrade", {"new_version": version})
        room_id: str = answer["replacement_room"]
        return room_id

    async def type(self, room: str, typing: bool = True, *, timeout_ms: int = 20_000) -> None:
        """Say that one is typing, or no longer."""
        body = {"typing": typing} | ({"timeout": timeout_ms} if typing else {})
        await self.put(f"/rooms/{quote(room)}/typing/{quote(self.user_id)}", body)

    async def read(self, room: str, event_id: str) -> None:
        """Say that one has read up to an event."""
        await self.post(f"/rooms/{quote(room)}/receipt/m.read/{quote(event_id, safe='')}")

    async def set_presence(self, presence: str, **body: Any) -> None:
        """Say that one is `online`, `unavailable` or `offline`."""
        await self.put(f"/presence/{quote(self.user_id)}/status", {"presence": presence, **body})

    async def members(self, room: str, **query: Any) -> dict[str, str]:
        """The membership of each user in the response of `/members`."""
        answer = await self.get(f"/rooms/{quote(room)}/members", **query)
        return {event["state_key"]: event["content"]["membership"] for event in answer["chunk"]}

    async def sync(self, since: str | None = None, *, timeout_ms: int = 0, **query: Any) -> Any:
        """One `/sync`; without `since` an initial one."""
        if since is not None:
            query["since"] = since
        return await self.get("/sync", timeout=timeout_ms, **query)

    async def _on_room(self, room: str, verb: str, body: Any) -> None:
        await self.post(f"/rooms/{quote(room)}/{verb}", body)


def bodies(events: list[Any]) -> list[str]:
    """The bodies of those of the events that are text messages."""
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]
