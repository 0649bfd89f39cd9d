"""Reports: users report inappropriate content to the administrators.

Reports are stored and logged; `homeserver report list` shows them. Reporting does not reveal
whether a room or a hidden event exists: any room id is accepted, and all events that the reporter
may not see get the same response.

Spec: https://spec.matrix.org/v1.19/client-server-api/#reporting-content
"""

from twisted.logger import Logger

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.errors import InvalidParam, NotFound
from homeserver.protocol.identifiers import InvalidIdentifier, parse_user_id
from homeserver.rooms.history.room_reader import RoomReader
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.storage.accounts.users import find_user
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.reports import Report, insert_report

MAX_REASON = 4_000  # characters
log = Logger()


class Reports:
    """Stores the reports of local users."""

    def __init__(
        self, db: Database, clock: Clock, server_name: str, rooms: RoomRegistry, reader: RoomReader
    ) -> None:
        self._db = db
        self._clock = clock
        self._server_name = server_name
        self._rooms = rooms
        self._reader = reader

    async def report_room(self, caller: Requester, room_id: str, reason: str) -> None:
        """Report a room, whether the caller is in it or not.

        For an unknown room nothing is stored, and the response is the same.
        Raises `InvalidParam` for a reason that is too long.
        """
        check_reason(reason)
        if await self._rooms.find(room_id) is not None:
            await self._store(caller, reason, room_id=room_id)

    async def report_event(
        self, caller: Requester, room_id: str, event_id: str, reason: str
    ) -> None:
        """Report an event in a room that the caller is joined to.

        Raises `NotFound` for every other event and for hidden ones, and `InvalidParam` for a reason
        that is too long.
        """
        check_reason(reason)
        room = await self._rooms.find(room_id)
        if room is None or room.membership(caller.user_id) != "join":
            raise NotFound("There is no such event, or you are not in the room")
        event = (await self._reader.event(caller.user_id, room_id, event_id)).stored.event
        await self._store(caller, reason, room_id=room_id, event_id=event_id, user_id=event.sender)

    async def report_user(self, caller: Requester, user_id: str, reason: str) -> None:
        """Report a user of this or another server.

        Raises `NotFound` for unknown local users, as their profiles do, and `InvalidParam`
        for an invalid user id or a reason that is too long.
        """
        check_reason(reason)
        try:
            server = parse_user_id(user_id).server_name
        except InvalidIdentifier:
            raise InvalidParam("Not a user ID") from None
        if server == self._server_name and await self._db.run(find_user, user_id) is None:
            raise NotFound("No such user")
        await self._store(caller, reason, user_id=user_id)

    async def _store(
        self,
        caller: Requester,
        reason: str,
        *,
        room_id: str | None = None,
        event_id: str | None = None,
        user_id: str | None = None,
    ) -> None:
        report = Report(caller.user_id, now_ms(self._clock), room_id, event_id, user_id, reason)
        await self._db.run(insert_report, report)
        log.info(
            "{reporter} reported {target}",
            reporter=report.reporter,
            target=describe_target(report),
        )


def check_reason(reason: str) -> None:
    """Raise `InvalidParam` for a reason that is too long."""
    if len(reason) > MAX_REASON:
        raise InvalidParam(f"A reason may have at most {MAX_REASON} characters")


def describe_target(report: Report) -> str:
    """The target of a report, as text for people."""
    if report.event_id is not None:
        return f"event {report.event_id} of {report.user_id} in room {report.room_id}"
    if report.room_id is not None:
        return f"room {report.room_id}"
    return f"user {report.user_id}"
