"""The deletion of a room from this server: its local users leave, and all its rows go.

Other servers keep the room. The phases of the job, each of which can be repeated:

1. `leave`: local members leave, some in each step, so that their clients and other servers hear it;
2. `settle`: what follows from that is sent and recorded;
3. `retire`: the room is dropped from memory, and is unknown from then on;
4. `erase`: its rows are deleted, table by table, and all in parts.

Its state nodes are garbage then. The room cannot be joined again before the next start of the
server, because caches go by its nid; or not at all, if it is blocked.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from homeserver.concurrency.clock import Clock, now_ms
from homeserver.rooms.membership.forced_leaves import PRESENT, ForcedLeaves
from homeserver.rooms.room.changes import DirectoryVisibilityChanged, RoomDeleted
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.background_jobs import Job, Progress, unfinished_jobs
from homeserver.storage.database.database import Database
from homeserver.storage.retention.blocked_rooms import block_room
from homeserver.storage.retention.room_deletion import (
    BY_ROOM,
    BY_ROOM_ID,
    BY_SCOPE,
    count_events_of_room,
    delete_events_of_room,
    delete_known_room,
    delete_of_room,
)
from homeserver.storage.rooms.rooms import find_room
from homeserver.streams.log import Log

DELETE_ROOM = "delete_room"
LEAVES = 10  # members who leave in a step
MAX_ROUNDS = 3  # of leaves, if members come back
EVENTS = 500  # events that a step deletes
ROWS = 10_000  # rows of another table that a step deletes
SETTLE_MS = 10_000  # for clients and other servers to hear of the leaves
MAX_SETTLE_MS = 300_000  # for readers that are behind
TABLES = (*BY_ROOM, *BY_SCOPE, *BY_ROOM_ID)

Phase = Callable[[Job], Awaitable[Progress]]


class RoomDeletion:
    """Makes the steps of these jobs. `handled_upto` is the position up to which all readers are."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        log: Log,
        rooms: RoomRegistry,
        leaves: ForcedLeaves,
        handled_upto: Callable[[], int],
    ) -> None:
        self._db = db
        self._clock = clock
        self._log = log
        self._rooms = rooms
        self._leaves = leaves
        self._handled_upto = handled_upto
        self._phases: dict[str, Phase] = {
            "leave": self._leave,
            "settle": self._settle,
            "retire": self._retire,
            "erase": self._erase,
        }

    async def load(self) -> None:
        """Keep rooms unknown whose deletion was interrupted, before any request arrives."""
        for job in await self._db.run(unfinished_jobs, DELETE_ROOM):
            if job.progress.get("phase") == "erase":
                self._rooms.retire(job.arguments["room"])

    async def step(self, job: Job) -> Progress:
        """Make the next step of the present phase."""
        return await self._phases[job.progress.get("phase", "leave")](job)

    async def _leave(self, job: Job) -> Progress:
        if job.arguments["block"]:
            await self._db.run(block_room, job.arguments["room_id"], now_ms(self._clock))
        rounds = {"rounds": job.progress.get("rounds", 0)}
        room = await self._rooms.by_number(job.arguments["room"])
        # In the order of their ids: a user who cannot leave is not tried again.
        after = job.progress.get("after", "")
        present = [user_id for user_id in self._local_members(room) if user_id > after]
        for user_id in present[:LEAVES]:
            await self._leaves.leave(job.arguments["room_id"], user_id)
        if present:
            return Progress({"phase": "leave", "after": present[:LEAVES][-1], **rounds}, 0)
        now = {"since": now_ms(self._clock), "position": self._log.position}
        return Progress({"phase": "settle", **now, **rounds}, 0)

    def _local_members(self, room: Room | None) -> list[str]:
        """The users of this server who are in the room, or invited, in the order of their ids."""
        is_local = self._rooms.local_server.is_local
        members = sorted(() if room is None else room.members.items())
        return [user for user, membership in members if membership in PRESENT and is_local(user)]

    async def _settle(self, job: Job) -> Progress:
        waited = now_ms(self._clock) - job.progress["since"]
        is_handled = self._handled_upto() >= job.progress["position"]
        if waited < SETTLE_MS or not (is_handled or waited > MAX_SETTLE_MS):
            return Progress(job.progress, 0, pause=0.5)
        return Progress({"phase": "retire", "rounds": job.progress.get("rounds", 0)}, 0)

    async def _retire(self, job: Job) -> Progress:
        room_nid, room_id = job.arguments["room"], job.arguments["room_id"]
        rounds = job.progress.get("rounds", 0) + 1
        if rounds < MAX_ROUNDS and self._local_members(await self._rooms.by_number(room_nid)):
            # They have come back meanwhile.
            return Progress({"phase": "leave", "rounds": rounds}, 0)
        if not self._rooms.retire(room_nid):
            return Progress(job.progress, 0, pause=0.5)
        await self._log.written()
        await self._db.transaction(delete_known_room, room_nid)
        # In this order: what is loaded from now on does not have the room.
        for entry in (
            RoomDeleted(self._log.next_position(), room_nid, room_id),
            DirectoryVisibilityChanged(self._log.next_position(), room_nid, False),
        ):
            self._log.append(entry).addErrback(lambda _: None)
        await self._log.written()
        total = await self._db.run(count_events_of_room, room_nid)
        return Progress({"phase": "erase", "table": 0}, 0, total)

    async def _erase(self, job: Job) -> Progress:
        room_nid, number = job.arguments["room"], job.progress["table"]
        if await self._db.run(find_room, room_nid) is not None:
            # The job was cancelled, the server restarted, and the room joined again.
            return Progress({}, job.done, job.total, is_finished=True)
        self._rooms.retire(room_nid)
        if number < len(TABLES):
            deleted = await self._db.run(
                delete_of_room, TABLES[number], room_nid, job.arguments["room_id"], ROWS
            )
            following = number + (not deleted)
            return Progress({"phase": "erase", "table": following}, job.done, job.total)
        deleted = await self._db.transaction(delete_events_of_room, room_nid, EVENTS)
        done = job.done + deleted
        return Progress(job.progress, done, job.total, is_finished=deleted < EVENTS)


def deletion_arguments(room_nid: int, room_id: str, *, block: bool) -> dict[str, Any]:
    """The arguments of the job that deletes a room, and blocks it."""
    return {"room": room_nid, "room_id": room_id, "block": block}
