"""Sending messages to devices, and delivering those of other servers.

The messages of one request are stored together, with its transaction id: all or none of them, once.
Those for devices of other servers are stored as the EDUs that will be sent; large requests become
several, since servers bound what they accept.

Spec: https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.concurrency.lru_cache import LruCache
from homeserver.encryption.changes import ToDeviceMessagesQueued, ToDeviceMessagesSent
from homeserver.encryption.device_directory import DeviceDirectory
from homeserver.encryption.user_devices import UserDevices
from homeserver.protocol.errors import BadJson, InvalidParam, TooLarge
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.protocol.json_elements import decode_or_none
from homeserver.protocol.signing.canonical_json import (
    NotCanonical,
    check_canonical,
    encode_checked,
)
from homeserver.rooms.events.local_server import LocalServer
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.outgoing_to_device import INSERT_OUTGOING
from homeserver.storage.encryption.to_device import (
    INSERT_MESSAGE,
    INSERT_TRANSACTION,
    transactions_of,
)
from homeserver.streams.log import Log

ALL_DEVICES = "*"
MAX_MESSAGE_BYTES = 65_536
MAX_EDU_BYTES = 65_536  # of the messages of one EDU that is sent, beyond the first
MAX_TYPE_BYTES = 255
MAX_DELIVERED = 5_000  # messages of one request or EDU: `*` is one for each device
MAX_DELIVERED_BYTES = 16_777_216  # of these messages together
MAX_CACHED_TRANSACTIONS = 200  # of a device
MAX_DEVICES = 5_000  # devices whose transactions are in memory
HASH_BYTES = 16
_encode = msgspec.json.Encoder().encode

Messages = Mapping[str, Mapping[str, msgspec.Raw]]
"""The content of each message, a JSON object, by user id and device id."""

_Decoded = dict[str, dict[str, Any]]
log = Logger()


class ReceivedMessages(msgspec.Struct, frozen=True):
    """The messages of an EDU of another server; `rows` are stored if any of them is delivered."""

    sender: str
    event_type: str
    messages: Messages
    rows: Sequence[Row]


class ToDevice:
    """Sends messages to devices."""

    def __init__(
        self, db: Database, log: Log, directory: DeviceDirectory, local_server: LocalServer
    ) -> None:
        self._db = db
        self._log = log
        self._directory = directory
        self._local_server = local_server
        self._seen: LruCache[tuple[str, str], LruCache[bytes, bool]] = LruCache(
            "to_device_transactions", MAX_DEVICES
        )
        self._sending: KeyedLocks[tuple[str, str, bytes]] = KeyedLocks()

    async def send(
        self, caller: Requester, event_type: str, txn_id: str, messages: Messages
    ) -> None:
        """Send a client's messages, once for a transaction id.

        Raises `InvalidParam` for the type, `TooLarge`, also for too many devices, and `BadJson`
        for a message that nobody can read, or that is for another server and cannot be signed.
        """
        if not event_type or len(event_type.encode()) > MAX_TYPE_BYTES:
            raise InvalidParam(f"An event type has 1 to {MAX_TYPE_BYTES} bytes")
        remote = self._remote(messages)
        device = caller.user_id, caller.transaction_scope
        seen = await self._transactions(device)
        key = _digest(event_type, txn_id)
        async with self._sending.hold((*device, key)):
            if key not in seen:
                done = INSERT_TRANSACTION.row(*device, key, self._log.position)
                await self._store(caller.user_id, event_type, messages, remote, [done])
                seen.put(key, True)

    async def receive(self, received: Sequence[ReceivedMessages]) -> None:
        """Deliver the messages of another server to local devices, in their order, in one commit.

        Each message has been checked. Raises `Unavailable`.
        """
        known = await self._known_devices([each for one in received for each in one.messages])
        self._log.check_open()
        written: list[Deferred[None]] = []
        for one in received:
            everybody = _to_devices(one.messages, known)
            local = _within_bounds(everybody)
            if local is not everybody:
                log.warn("dropped messages to too many devices from {user}", user=one.sender)
            if local:
                written += self._append(one.sender, one.event_type, local, {}, one.rows)
        for each in written:
            await each

    async def _store(
        self,
        sender: str,
        event_type: str,
        messages: Messages,
        remote: Mapping[str, _Decoded],
        rows: Sequence[Row],
    ) -> None:
        local = _to_devices(messages, await self._known_devices(messages))
        if _within_bounds(local) is not local:
            raise TooLarge(f"A request has messages to at most {MAX_DELIVERED} devices")
        self._log.check_open()
        for each in self._append(sender, event_type, local, remote, rows):
            await each

    def _append(
        self,
        sender: str,
        event_type: str,
        local: Messages,
        remote: Mapping[str, _Decoded],
        rows: Sequence[Row],
    ) -> list[Deferred[None]]:
        """Append messages to the log: all of them are in one commit, together with `rows`."""
        head = b'{"type":%s,"sender":%s,"content":' % (_encode(event_type), _encode(sender))
        more = list(rows)
        written: list[Deferred[None]] = []
        for user_id, contents in local.items():
            position = self._log.next_position()
            sent = tuple(
                (device_id, b"%s%s}" % (head, bytes(raw))) for device_id, raw in contents.items()
            )
            more += [
                INSERT_MESSAGE.row(user_id, device_id, position, each) for device_id, each in sent
            ]
            written.append(self._log.append(ToDeviceMessagesSent(position, user_id, sent), more))
            more = []
        for server, decoded in remote.items():
            for part in _parts(decoded):
                position = self._log.next_position()
                edu = {
                    "sender": sender,
                    "type": event_type,
                    "message_id": str(position),
                    "messages": part,
                }
                more.append(INSERT_OUTGOING.row(server, position, encode_checked(edu)))
                written.append(self._log.append(ToDeviceMessagesQueued(position, server), more))
                more = []
        if more:
            nobody = ToDeviceMessagesSent(self._log.next_position(), sender, ())
            written.append(self._log.append(nobody, more))
        return written

    async def _known_devices(self, user_ids: Iterable[str]) -> dict[str, UserDevices]:
        """The devices of the local users among some."""
        local = {each for each in user_ids if self._local_server.is_local(each)}
        return await self._directory.of_all(local)

    def _remote(self, messages: Messages) -> dict[str, _Decoded]:
        """The messages for other servers, by server, after all messages were checked."""
        remote: dict[str, _Decoded] = {}
        for user_id, contents in messages.items():
            is_local = self._local_server.is_local(user_id)
            decoded = {
                device_id: _checked(content, is_signed=not is_local)
                for device_id, content in contents.items()
            }
            if not is_local and decoded and is_valid_user_id(user_id):
                remote.setdefault(user_id.partition(":")[2], {})[user_id] = decoded
        return remote

    async def _transactions(self, device: tuple[str, str]) -> LruCache[bytes, bool]:
        seen = self._seen.get(device)
        if seen is None:
            loaded: LruCache[bytes, bool] = LruCache("", MAX_CACHED_TRANSACTIONS)
            for key in await self._db.run(transactions_of, *device, MAX_CACHED_TRANSACTIONS):
                loaded.put(key, True)
            seen = self._seen.setdefault(device, loaded)
        return seen


def _to_devices(
    messages: Messages, known: Mapping[str, UserDevices]
) -> dict[str, dict[str, msgspec.Raw]]:
    """The messages to known devices, with `*` spelt out."""
    found: dict[str, dict[str, msgspec.Raw]] = {}
    for user_id, contents in messages.items():
        if user_id not in known:
            continue
        to_all = contents.get(ALL_DEVICES)
        chosen = {
            device_id: content
            for device_id in known[user_id].devices
            if (content := contents.get(device_id, to_all)) is not None
        }
        if chosen:
            found[user_id] = chosen
    return found


def _within_bounds(messages: Messages) -> Messages:
    """As many messages as may be delivered at once: the same object if that is all of them."""
    found: dict[str, dict[str, msgspec.Raw]] = {}
    number = size = 0
    for user_id, contents in messages.items():
        for device_id, content in contents.items():
            number += 1
            size += len(bytes(content))
            if number > MAX_DELIVERED or size > MAX_DELIVERED_BYTES:
                return found
            found.setdefault(user_id, {})[device_id] = content
    return messages


def _parts(messages: _Decoded) -> Iterator[_Decoded]:
    """Messages in the parts that are sent as EDUs."""
    part: _Decoded = {}
    size = 0
    for user_id, contents in messages.items():
        for device_id, content in contents.items():
            length = len(_encode(content))
            if part and size + length > MAX_EDU_BYTES:
                yield part
                part, size = {}, 0
            size += length
            part.setdefault(user_id, {})[device_id] = content
    yield part


def _checked(content: msgspec.Raw, *, is_signed: bool) -> Any:
    """The decoded content of a message. Raises `TooLarge` and `BadJson`."""
    raw = bytes(content)
    if len(raw) > MAX_MESSAGE_BYTES:
        raise TooLarge(f"A message to a device has at most {MAX_MESSAGE_BYTES} bytes")
    decoded = decode_or_none(raw)
    if not isinstance(decoded, dict):
        raise BadJson("The content of a message is an object")
    if is_signed:
        try:
            check_canonical(decoded)
        except NotCanonical as error:
            raise BadJson(f"The message cannot be sent to another server: {error}") from None
    return decoded


def _digest(event_type: str, txn_id: str) -> bytes:
    text = f"{len(event_type)} {event_type}{txn_id}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()
