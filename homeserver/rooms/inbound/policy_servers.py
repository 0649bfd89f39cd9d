"""Rooms with a policy server: no event is sent, or shown, that it does not recommend.

The policy server signs a local event before it enters the room; if it refuses, the client gets its
reason. An event of another server should have that signature; if it has none, or not a
valid one, the policy server is asked, and an event that it does not sign is soft-failed. An
unreachable policy server recommends nothing. A room can always remove its policy server, since that
event is exempt.

Spec: https://spec.matrix.org/v1.19/server-server-api/#policy-servers
"""

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import DeferredSemaphore
from twisted.logger import Logger

from homeserver.protocol.errors import Forbidden, MatrixError
from homeserver.protocol.event_types import POLICY_KEY
from homeserver.protocol.events import Event
from homeserver.protocol.policy_servers import KEY_ID, PolicyServer, is_exempt, parse_policy
from homeserver.rooms.events.event_draft import ClientTransaction, EventDraft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.inbound.branches import PduReceiverPort
from homeserver.rooms.room.preview import build_preview
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.writer import RoomWriter

MAX_CONCURRENT_REQUESTS = 4  # requests for events of one room: each event becomes a branch

log = Logger()


class PolicySignerPort(Protocol):
    """Requests signatures from policy servers."""

    async def sign(self, server: str, event: Event, *, is_waited_for: bool) -> bytes:
        """The signature of an event. Raises `MatrixError` if the server refuses or is unavailable.

        `is_waited_for`: send the request even if the server failed lately, since a user waits.
        """


class PolicyServers:
    """Has events checked by the policy servers of rooms."""

    def __init__(self, storage: RoomStorage, signer: PolicySignerPort) -> None:
        self._storage = storage
        self._signer = signer

    def applies_to(self, writer: RoomWriter, draft: EventDraft) -> bool:
        """Whether the room has named a policy server that must check such an event."""
        return writer.current_nid(POLICY_KEY) is not None and not is_exempt(
            draft.type, draft.state_key
        )

    async def signed(self, writer: RoomWriter, event: Event) -> Event:
        """A local event with the signature of the room's policy server, if it has one.

        Raises `Forbidden` or the policy server's own error if it does not recommend the event.
        """
        policy = await self.policy_server_of(writer)
        if policy is None or is_exempt(event.type, event.state_key):
            return event
        return await self.sign(policy, event, is_waited_for=True)

    async def check(self, writer: RoomWriter, event: Event) -> tuple[Event, str | None]:
        """An event of any server, signed if it was not, and the reason if it is not recommended."""
        policy = await self.policy_server_of(writer)
        if policy is None or is_exempt(event.type, event.state_key) or policy.recommends(event):
            return event, None
        try:
            return await self.sign(policy, event, is_waited_for=False), None
        except MatrixError as error:
            log.info("policy server does not recommend {event}: {error}", event=event, error=error)
            return event, f"{policy.name} does not recommend it: {error}"

    async def policy_server_of(self, writer: RoomWriter) -> PolicyServer | None:
        """The room's policy server, which must be in the room to be one."""
        number = writer.current_nid(POLICY_KEY)
        if number is None:
            return None
        stored = (await self._storage.events.load(writer.room.version, [number]))[number]
        policy = parse_policy(stored.shown.content)
        if policy is None or policy.name not in writer.room.servers:
            return None
        return policy

    async def sign(self, policy: PolicyServer, event: Event, *, is_waited_for: bool) -> Event:
        """An event with the signature of a policy server. Raises `MatrixError` if it refuses."""
        signature = await self._signer.sign(policy.name, event, is_waited_for=is_waited_for)
        signed = event.with_signature(policy.name, KEY_ID, signature)
        if not policy.recommends(signed):
            raise Forbidden(f"{policy.name} signed with a key that the room does not name")
        return signed


class PolicySender:
    """Sends local events into rooms that have a policy server: after that has signed them."""

    def __init__(self, policy_servers: PolicyServers, receiver: PduReceiverPort) -> None:
        self._policy_servers = policy_servers
        self._receiver = receiver
        self._requests: dict[int, DeferredSemaphore] = {}  # of each room

    def applies_to(self, writer: RoomWriter, draft: EventDraft) -> bool:
        """Whether the room has named a policy server that must check the draft."""
        return self._policy_servers.applies_to(writer, draft)

    async def send(
        self,
        writer: RoomWriter,
        draft: EventDraft,
        transaction: ClientTransaction | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> StoredEvent | None:
        """Send an event that the policy server recommends.

        `None` if the room has no policy server after all, or if `is_wanted` is false when the
        policy server has responded. Meanwhile other events are sent: this one is then on a branch.
        Raises what `RoomWriter.send` raises, and the policy server's own error.
        """
        number = writer.room.room_nid
        slots = self._requests.setdefault(number, DeferredSemaphore(MAX_CONCURRENT_REQUESTS))
        await slots.acquire()
        try:
            policy = await self._policy_servers.policy_server_of(writer)
            if policy is None:
                return None
            event = await build_preview(writer, draft)
            event = await self._policy_servers.sign(policy, event, is_waited_for=True)
            if not is_wanted():
                return None
            return await self._receiver.receive_own(writer, event, transaction)
        finally:
            slots.release()
            if slots.tokens == MAX_CONCURRENT_REQUESTS and not slots.waiting:
                self._requests.pop(number, None)
