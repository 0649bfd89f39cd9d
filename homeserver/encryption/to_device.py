"""Sending messages to devices.

The messages of one request are stored together, with its transaction id: all or none of them, once.

Spec: https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import msgspec
from twisted.internet.defer import Deferred

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.concurrency.lru_cache import LruCache
from homeserver.encryption.changes import ToDeviceMessagesQueued, ToDeviceMessagesSent
from homeserver.encryption.device_directory import DeviceDirectory
from homeserver.protocol.errors import BadJson, TooLarge
from homeserver.protocol.identifiers import is_valid_server_name
from homeserver.protocol.signing.canonical_json import NotCanonical, check_canonical
from homeserver.rooms.events.local_server import LocalServer
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.to_device import (
    INSERT_MESSAGE,
    INSERT_OUTGOING,
    INSERT_TRANSACTION,
    transactions_of,
)
from homeserver.streams.log import Log

ALL_DEVICES = "*"
MAX_MESSAGE_BYTES = 65_536
MAX_CACHED_TRANSACTIONS = 200  # of a device
MAX_DEVICES = 5_000  # devices whose transactions are in memory
HASH_BYTES = 16
_encode = msgspec.json.Encoder().encode

Messages = Mapping[str, Mapping[str, msgspec.Raw]]
"""The content of each message, a JSON object, by user id and device id."""


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

        Raises `TooLarge`, and `BadJson` for a message to another server that cannot be signed.
        """
        remote = self._remote(messages)
        device = caller.user_id, caller.device_id or ""
        seen = await self._transactions(device)
        key = _digest(event_type, txn_id)
        async with self._sending.hold((*device, key)):
            if key not in seen:
                done = INSERT_TRANSACTION.row(*device, key, self._log.position)
                await self._store(caller.user_id, event_type, messages, remote, [done])
                seen.put(key, True)

    async def receive(
        self, sender: str, event_type: str, messages: Messages, rows: Sequence[Row]
    ) -> None:
        """Deliver another server's messages to local devices; `rows` are stored with them."""
        await self._store(sender, event_type, messages, {}, rows)

    async def _store(
        self,
        sender: str,
        event_type: str,
        messages: Messages,
        remote: Mapping[str, Messages],
        rows: Sequence[Row],
    ) -> None:
        local = await self._existing_devices(messages)
        self._log.check_open()
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
        for server, contents_by_user in remote.items():
            position = self._log.next_position()
            edu = {
                "sender": sender,
                "type": event_type,
                "message_id": str(position),
                "messages": contents_by_user,
            }
            more.append(INSERT_OUTGOING.row(server, position, _encode(edu)))
            written.append(self._log.append(ToDeviceMessagesQueued(position, server), more))
            more = []
        if more:
            nobody = ToDeviceMessagesSent(self._log.next_position(), sender, ())
            written.append(self._log.append(nobody, more))
        for each in written:
            await each

    async def _existing_devices(self, messages: Messages) -> dict[str, dict[str, msgspec.Raw]]:
        """The messages to local devices, without devices that do not exist, and `*` spelt out."""
        local = [user_id for user_id in messages if self._local_server.is_local(user_id)]
        known = await self._directory.of_all(local)
        found: dict[str, dict[str, msgspec.Raw]] = {}
        for user_id in local:
            contents = messages[user_id]
            to_all = contents.get(ALL_DEVICES)
            chosen = {
                device_id: content
                for device_id in known[user_id].devices
                if (content := contents.get(device_id, to_all)) is not None
            }
            if chosen:
                found[user_id] = chosen
        return found

    def _remote(self, messages: Messages) -> dict[str, dict[str, Mapping[str, msgspec.Raw]]]:
        """The messages for other servers, by server, after all messages were checked."""
        remote: dict[str, dict[str, Mapping[str, msgspec.Raw]]] = {}
        for user_id, contents in messages.items():
            is_local = self._local_server.is_local(user_id)
            server = user_id.partition(":")[2]
            for content in contents.values():
                _check(content, is_signed=not is_local)
            if not is_local and contents and is_valid_server_name(server):
                remote.setdefault(server, {})[user_id] = contents
        return remote

    async def _transactions(self, device: tuple[str, str]) -> LruCache[bytes, bool]:
        seen = self._seen.get(device)
        if seen is None:
            loaded: LruCache[bytes, bool] = LruCache("", MAX_CACHED_TRANSACTIONS)
            for key in await self._db.run(transactions_of, *device, MAX_CACHED_TRANSACTIONS):
                loaded.put(key, True)
            seen = self._seen.setdefault(device, loaded)
        return seen


def _check(content: msgspec.Raw, *, is_signed: bool) -> None:
    raw = bytes(content)
    if len(raw) > MAX_MESSAGE_BYTES:
        raise TooLarge(f"A message to a device has at most {MAX_MESSAGE_BYTES} bytes")
    decoded = msgspec.json.decode(raw)
    if not isinstance(decoded, dict):
        raise BadJson("The content of a message is an object")
    if is_signed:
        try:
            check_canonical(decoded)
        except NotCanonical as error:
            raise BadJson(f"The message cannot be sent to another server: {error}") from None


def _digest(event_type: str, txn_id: str) -> bytes:
    text = f"{len(event_type)} {event_type}{txn_id}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()
