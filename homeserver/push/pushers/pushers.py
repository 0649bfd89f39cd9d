"""The pushers of users: set by their clients, and deleted with the device that set them.

A pusher is one of a user, an app id and a pushkey. Setting it for another user takes it from the
first, unless the client says that both use the same device (`append`).

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset
"""

from collections.abc import Sequence
from secrets import token_urlsafe

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import Deferred

from homeserver.accounts.sessions.devices import DeviceChange, DevicesRemoved
from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.protocol.errors import ThreepidNotFound, UserLimitExceeded
from homeserver.push.pushers.directory import PusherDirectory
from homeserver.push.pushers.pusher import EMAIL, Pusher, PushersChanged
from homeserver.storage.accounts.third_party_ids import third_party_ids_of
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database
from homeserver.storage.push.pushers import (
    DELETE_PUSHER,
    DELETE_PUSHERS_OF_DEVICE,
    DELETE_PUSHERS_OF_OTHERS,
    UPSERT_PUSHER,
    PusherRow,
    all_pushers_of,
    other_users_with,
    pusher_by_unsubscribe_token,
    pushers_of,
)
from homeserver.streams.log import Log

MAX_PUSHERS = 100  # of one user
TOKEN_BYTES = 32


class PusherRequest(msgspec.Struct, frozen=True):
    """What a client sets, checked. `data` is JSON."""

    kind: str
    app_id: str
    pushkey: str
    app_display_name: str
    device_display_name: str
    profile_tag: str
    lang: str
    data: bytes
    enabled: bool = True
    append: bool = False


class Pushers:
    """Sets and deletes pushers; it accompanies the changes of devices."""

    def __init__(self, db: Database, log: Log, clock: Clock, directory: PusherDirectory) -> None:
        self._db = db
        self._log = log
        self._clock = clock
        self._directory = directory
        self._locks: KeyedLocks[str] = KeyedLocks()

    async def of(self, user_id: str) -> list[Pusher]:
        """The pushers of a user, oldest first."""
        return [Pusher(row) for row in await self._db.run(pushers_of, [user_id])]

    async def set(self, caller: Requester, request: PusherRequest) -> None:
        """Add a pusher, or replace the one with the same app id and pushkey.

        Raises `UserLimitExceeded` and, for an e-mail address that is not the user's,
        `ThreepidNotFound`.
        """
        user_id, app_id, pushkey = caller.user_id, request.app_id, request.pushkey
        async with self._locks.hold(user_id), self._locks.hold(f"{app_id} {pushkey}"):
            existing = await self._db.run(pushers_of, [user_id])
            before = next((row for row in existing if _names(row, request)), None)
            if before is None and len(existing) >= MAX_PUSHERS:
                raise UserLimitExceeded(f"A user has at most {MAX_PUSHERS} pushers")
            others: list[str] = []
            if not request.append:
                others = await self._db.run(other_users_with, app_id, pushkey, user_id)
            if request.kind == EMAIL:
                await self._check_address(user_id, pushkey)
            after = self._row(caller, request, before)
            if after == before and not others:
                return  # many clients set their pusher whenever they start
            self._log.check_open()
            position = self._log.next_position()
            rows = [_upserted(after, position)]
            if others:
                rows.append(DELETE_PUSHERS_OF_OTHERS.row(app_id, pushkey, user_id))
            await self._append(position, (user_id, *others), rows)

    async def delete(self, user_id: str, app_id: str, pushkey: str) -> None:
        """Delete a user's pusher, if there is one."""
        async with self._locks.hold(user_id), self._locks.hold(f"{app_id} {pushkey}"):
            rows = await self._db.run(pushers_of, [user_id])
            await self._delete(
                user_id, [row for row in rows if (row.app_id, row.pushkey) == (app_id, pushkey)]
            )

    async def rejected(self, pusher: Pusher) -> None:
        """Delete a pusher whose gateway does not know its pushkey, unless it was set since."""
        await self._delete(pusher.row.user_id, [pusher.row])

    async def address_removed(self, user_id: str, address: str) -> None:
        """Delete the pushers to an e-mail address that was removed from the account."""
        rows = await self._db.run(all_pushers_of, user_id)
        await self._delete(
            user_id, [row for row in rows if (row.kind, row.pushkey) == (EMAIL, address)]
        )

    async def find_by_unsubscribe_token(self, token: str) -> Pusher | None:
        """The pusher that a link in a mail names."""
        row = await self._db.run(pusher_by_unsubscribe_token, token)
        return None if row is None else Pusher(row)

    async def unsubscribe(self, token: str) -> None:
        """Delete the pusher that a link in a mail names, if it is still there."""
        row = await self._db.run(pusher_by_unsubscribe_token, token)
        if row is not None:
            await self._delete(row.user_id, [row])

    async def deactivated(self, user_id: str, erase: bool) -> None:
        """Delete all pushers of a deactivated user."""
        await self._delete(user_id, await self._db.run(all_pushers_of, user_id))

    async def lock_changed(self, user_id: str) -> None:
        """Have the pushers of a user read again, whose account was locked or unlocked."""
        await self._append(self._log.next_position(), (user_id,), ())

    async def prepare(self, user_id: str) -> None:
        """Load nothing: `follow` needs no data."""

    def follow(self, change: DeviceChange) -> None:
        """Delete the pushers of removed devices in the same commit (called by `Devices`)."""
        if isinstance(change, DevicesRemoved) and change.user_id in self._directory.users:
            rows = [
                DELETE_PUSHERS_OF_DEVICE.row(change.user_id, device_id)
                for device_id in change.device_ids
            ]
            # Not awaited: the change of the devices is in the same commit.
            appended = self._append(self._log.next_position(), (change.user_id,), rows)
            appended.addErrback(lambda _: None)

    async def _delete(self, user_id: str, rows: Sequence[PusherRow]) -> None:
        if rows:
            self._log.check_open()
            deleted = [DELETE_PUSHER.row(row.pusher, row.set_position) for row in rows]
            await self._append(self._log.next_position(), (user_id,), deleted)

    async def _check_address(self, user_id: str, address: str) -> None:
        """Raise `ThreepidNotFound` unless an e-mail address is that of the user's account."""
        addresses = await self._db.run(third_party_ids_of, user_id)
        if not any((each.medium, each.address) == (EMAIL, address) for each in addresses):
            raise ThreepidNotFound("Your account does not have this e-mail address")

    def _append(
        self, position: int, user_ids: tuple[str, ...], rows: Sequence[Row]
    ) -> "Deferred[None]":
        return self._log.append(PushersChanged(position, user_ids), rows)

    def _row(
        self, caller: Requester, request: PusherRequest, before: PusherRow | None
    ) -> PusherRow:
        """The row after a request; the row before, if the request changes nothing."""
        now = now_ms(self._clock)
        # A mailbox is no device: its pusher stays when the device that set it is logged out.
        device_id, token = (None, None) if request.kind == EMAIL else _session(caller)
        if before is None:
            return _requested(_new_row(caller.user_id, device_id, token, request, now), request)
        after = _requested(before, request)
        if after == before and request.enabled != before.enabled:
            # Any device may switch the pusher of another one on and off (MSC3881).
            return replace(after, enabled=request.enabled)
        after = replace(after, enabled=request.enabled, device_id=device_id, token=token)
        return after if after == before else replace(after, set_ms=now)


def _session(caller: Requester) -> tuple[str | None, int | None]:
    """The device of a session, or the number of its access token if it has none."""
    if caller.device_id is not None:
        return caller.device_id, None
    return None, caller.token or None


def _new_row(
    user_id: str, device_id: str | None, token: int | None, request: PusherRequest, now: int
) -> PusherRow:
    return PusherRow(
        pusher=0,
        user_id=user_id,
        device_id=device_id,
        token=token,
        kind="",
        app_id=request.app_id,
        pushkey=request.pushkey,
        app_display_name="",
        device_display_name="",
        profile_tag="",
        lang="",
        data=b"",
        enabled=request.enabled,
        set_position=0,
        set_ms=now,
        sent_upto=0,
        behind_since=None,
        failing_since_ms=None,
        badge=None,
        digest=None,
        unsubscribe_token=None,
        is_locked=False,
    )


def _requested(row: PusherRow, request: PusherRequest) -> PusherRow:
    """A row as a request has it, except who sets it, and whether it is enabled."""
    token = row.unsubscribe_token or token_urlsafe(TOKEN_BYTES)
    return replace(
        row,
        kind=request.kind,
        app_display_name=request.app_display_name,
        device_display_name=request.device_display_name,
        profile_tag=request.profile_tag,
        lang=request.lang,
        data=request.data,
        unsubscribe_token=token if request.kind == EMAIL else None,
    )


def _names(row: PusherRow, request: PusherRequest) -> bool:
    return (row.app_id, row.pushkey) == (request.app_id, request.pushkey)


def _upserted(row: PusherRow, position: int) -> Row:
    return UPSERT_PUSHER.row(
        row.pusher or position,
        row.user_id,
        row.device_id,
        row.token,
        row.kind,
        row.app_id,
        row.pushkey,
        row.app_display_name,
        row.device_display_name,
        row.profile_tag,
        row.lang,
        row.data,
        row.enabled,
        position,
        row.set_ms,
        row.unsubscribe_token,
    )
