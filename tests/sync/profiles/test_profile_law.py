"""The law of profiles: whatever the moments of its syncs, a client has the profiles as they are.

A client that is sent all members has the whole profiles of all users with whom it shares a room,
and of no others. One that lazy-loads members has nothing that is not so, and the whole profile of
each user whose messages it was sent.
"""

import contextlib
from itertools import count
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import MatrixError, NotFound
from homeserver.protocol.sliding_sync.accepted_form import AcceptedBody
from homeserver.protocol.sliding_sync.request import RequestBody, SlidingSyncRequest, UnknownPos
from homeserver.protocol.sliding_sync.response import Form
from homeserver.storage.database.database import Connection
from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import SyncServer

PEOPLE = ("alice", "bob", "carol")
READERS = ("alice", "bob")
FIELDS = ("a", "b", "c")
WANTED = ("a", "b")
Action = tuple[Any, ...]
Profile = dict[str, Any]

people, rooms = st.sampled_from(PEOPLE), st.integers(0, 1)
syncs = st.tuples(st.just("sync"), st.sampled_from(READERS), st.sampled_from([False, False, True]))
changes = st.tuples(st.just("set"), people, st.sampled_from(FIELDS), st.integers(0, 9))
actions: st.SearchStrategy[Action] = st.one_of(
    changes,
    changes,
    syncs,
    syncs,
    st.tuples(st.just("remove"), people, st.sampled_from(FIELDS)),
    st.tuples(st.just("join"), people, rooms),
    st.tuples(st.just("leave"), people, rooms),
    st.tuples(st.just("kick"), people, rooms, people),
    st.tuples(st.just("say"), people, rooms),
    st.tuples(st.just("window"), st.sampled_from(READERS), st.integers(-1, 1)),
    st.tuples(st.just("fields"), st.sampled_from(READERS), st.sampled_from([WANTED, FIELDS])),
    st.tuples(st.just("return"), people, rooms),
    st.tuples(st.just("learn"), st.sampled_from(READERS)),
    st.tuples(st.just("restart")),
)


class ProfileReader:
    """A client: what it was sent of profiles, and the users whose messages it has."""

    def __init__(self, user: Requester, *, lazy: bool) -> None:
        self.user = user
        self.lazy = lazy
        self.fields: tuple[str, ...] = WANTED
        self.end = 1
        self.profiles: dict[str, Profile] = {}
        self.shown: set[str] = set()

    async def sync(self, server: SyncServer, *, lose: bool) -> None:
        """Sync once; the response may get lost."""
        raise NotImplementedError

    async def show(self, server: SyncServer, room_id: str, events: Any) -> None:
        """Show events of a room: those of its members are shown with their profiles."""
        room = await server.core.registry.find(room_id)
        assert room is not None
        senders = {event["sender"] for event in events}
        self.shown |= {each for each in senders if room.membership(each) == "join"}

    def want(self, fields: tuple[str, ...]) -> None:
        """Ask for other fields; with lazy loading they may come with the next messages only."""
        self.fields = fields
        self.shown.clear()

    def drop(self, user_id: str) -> None:
        self.profiles.pop(user_id, None)
        self.shown.discard(user_id)


class SyncReader(ProfileReader):
    """A client of `/sync`."""

    since: str | None = None

    async def sync(self, server: SyncServer, *, lose: bool) -> None:
        wanted = {
            "profile_fields": {"ids": WANTED},
            "room": {"state": {"lazy_load_members": self.lazy}, "timeline": {"limit": 3}},
        }
        response = await server.update(self.user, self.since, wanted)
        if lose:
            return
        self.since = response["next_batch"]
        for room_id, room in response.get("rooms", {}).get("join", {}).items():
            await self.show(server, room_id, room.get("timeline", {}).get("events", ()))
        for user_id, update in response.get("users", {}).items():
            fields = update["profile_updates"]
            if fields is None:
                self.drop(user_id)
                continue
            assert set(fields) <= set(WANTED)
            profile = self.profiles.setdefault(user_id, {})
            for field, value in fields.items():
                profile.pop(field, None)
                if value is not None:
                    profile[field] = value


class SlidingReader(ProfileReader):
    """A client of sliding sync. It drops what it does not ask for any more."""

    pos: str | None = None

    def __init__(self, user: Requester, *, lazy: bool) -> None:
        super().__init__(user, lazy=lazy)
        self._values: dict[bytes, RequestBody] = {}

    async def sync(self, server: SyncServer, *, lose: bool) -> None:
        for profile in self.profiles.values():
            for field in profile.keys() - set(self.fields):
                del profile[field]
        try:
            response = await self._request(server)
        except UnknownPos:
            self.pos, self.profiles, self.shown = None, {}, set()
            response = await self._request(server)
        if lose:
            return
        self.pos = response["pos"]
        for room_id, room in response["rooms"].items():
            if room["membership"] == "join":
                await self.show(server, room_id, room.get("timeline", ()))
        users = response["extensions"].get("profiles", {"users": {}})["users"]
        for user_id, update in users.items():
            if update is None:
                self.drop(user_id)
                continue
            assert update, "there is no update without news"
            assert set(update) <= {"updated", "removed"}
            assert set(update.get("updated", ())) <= set(self.fields)
            profile = self.profiles.setdefault(user_id, {})
            profile |= update.get("updated", {})
            for field in update.get("removed", ()):
                profile.pop(field, None)

    async def _request(self, server: SyncServer) -> Any:
        request = SlidingSyncRequest(self._value(), "c", self.pos, 0)
        response = await server.sync.sliding.sliding_sync.sync(self.user, request, 0)
        return msgspec.json.decode(response.encode(Form.ACCEPTED))

    def _value(self) -> RequestBody:
        include = [{"type": "m.room.create"}] if self.lazy else [{"type": "m.room.member"}]
        room = {
            "timeline_limit": 3,
            "required_state": {"include": include, "lazy_members": self.lazy},
        }
        lists = {} if self.end < 0 else {"all": room | {"range": [0, self.end]}}
        extensions = {"profiles": {"enabled": True, "fields": self.fields}}
        encoded = msgspec.json.encode({"lists": lists, "extensions": extensions})
        if encoded not in self._values:
            body = msgspec.json.decode(encoded, type=AcceptedBody)
            self._values[encoded] = body.value(len(encoded))
        return self._values[encoded]


class ProfileLawTests(DatabaseTestCase):
    timeout = 300
    max_examples = 25
    max_actions = 25
    transcodes = False

    async def setUp(self) -> None:
        await super().setUp()
        self.numbers = count()

    async def test_sync(self) -> None:
        """Updates of `/sync` add up to the profiles."""
        await self.check(SyncReader, lazy=False)

    async def test_sync_with_lazy_loading(self) -> None:
        """The same for a client that lazy-loads members."""
        await self.check(SyncReader, lazy=True)

    async def test_sliding_sync(self) -> None:
        """Updates of sliding sync add up to the profiles, whatever its ranges were."""
        await self.check(SlidingReader, lazy=False)

    async def test_members_who_were_away_while_the_room_was_out_of_the_window(self) -> None:
        """The client has dropped their profiles, or all when the reader was away."""
        for who in ("alice", "bob"):
            plan = [("window", "alice", -1), ("set", "bob", "a", 0), ("return", who, 0)]
            await self._play(plan, SlidingReader, lazy=False)

    async def test_sliding_sync_with_lazy_loading(self) -> None:
        """The same for a client that lazy-loads members."""
        await self.check(SlidingReader, lazy=True)

    async def check(self, reader: type[ProfileReader], *, lazy: bool) -> None:
        @settings(
            max_examples=self.max_examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(actions, min_size=8, max_size=self.max_actions))
        def law(plan: list[Action]) -> None:
            blockingCallFromThread(
                reactor, lambda: Deferred.fromCoroutine(self._play(plan, reader, lazy=lazy))
            )

        await deferToThread(law)

    async def _play(self, plan: list[Action], reader: type[ProfileReader], *, lazy: bool) -> None:
        number = next(self.numbers)
        server = await SyncServer.start(self.db, transcodes=self.transcodes)
        users = {name: await server.user(f"{name}{number}") for name in PEOPLE}
        for user in users.values():
            await _add_device(server, user)
        room_ids = [
            await server.create_room(users["alice"]),
            await server.create_room(users["bob"]),
        ]
        for name, room_id in (("bob", room_ids[0]), ("carol", room_ids[0]), ("carol", room_ids[1])):
            await server.rooms.memberships.join(users[name], room_id)
        readers = {name: reader(users[name], lazy=lazy) for name in READERS}
        for each in readers.values():
            await each.sync(server, lose=False)
        for what, *rest in plan:
            if what == "restart":
                await server.stop()
                server = await SyncServer.start(self.db, transcodes=self.transcodes)
            elif what == "return":
                await _return(server, users[rest[0]], room_ids[rest[1]], readers)
            elif what in ("sync", "window", "fields", "learn"):
                await _read(server, readers[rest[0]], what, *rest[1:])
            else:
                # The authorisation rules refuse many actions of a random plan.
                with contextlib.suppress(MatrixError):
                    await _act(server, users, room_ids, what, *rest)
        for each in readers.values():
            each.end = 1
            await each.sync(server, lose=False)
            await _check_profiles(server, users, each)
        await server.stop()


class ProfileLawWithDecodedEntriesTests(ProfileLawTests):
    """The same where the subscribers of the log see decoded entries."""

    max_examples = 5
    transcodes = True


async def _act(
    server: SyncServer, users: dict[str, Requester], room_ids: list[str], what: str, *rest: Any
) -> None:
    user, profiles = users[rest[0]], server.accounts.local_profiles
    members = server.rooms.memberships
    if what == "set":
        await profiles.write(user.user_id, rest[1], msgspec.json.encode(rest[2]))
    elif what == "remove":
        await profiles.write(user.user_id, rest[1], None)
    elif what == "join":
        await members.join(user, room_ids[rest[1]])
    elif what == "leave":
        await members.leave(user, room_ids[rest[1]])
    elif what == "kick":
        await members.kick(user, room_ids[rest[1]], users[rest[2]].user_id)
    else:
        await server.say(user, room_ids[rest[1]], "hello")


async def _return(
    server: SyncServer, user: Requester, room_id: str, readers: dict[str, ProfileReader]
) -> None:
    """Have a user leave, everybody see that, and the user come back."""
    with contextlib.suppress(MatrixError):
        await server.rooms.memberships.leave(user, room_id)
        for each in readers.values():
            await each.sync(server, lose=False)
        await server.rooms.memberships.join(user, room_id)


async def _read(server: SyncServer, reader: ProfileReader, what: str, *rest: Any) -> None:
    """Do what a client does."""
    if what == "sync":
        await reader.sync(server, lose=rest[0])
    elif what == "window":
        (reader.end,) = rest
    elif what == "fields":
        reader.want(*rest)
    else:
        # It learns to show other fields while it shows no room.
        reader.end = -1
        reader.want(WANTED[:1])
        await reader.sync(server, lose=False)
        reader.want(FIELDS)
        await reader.sync(server, lose=False)
        reader.end = 1


async def _check_profiles(
    server: SyncServer, users: dict[str, Requester], reader: ProfileReader
) -> None:
    own = set(await server.core.user_rooms.joined(reader.user.user_id))
    wanted = WANTED if isinstance(reader, SyncReader) else reader.fields
    shared = {reader.user.user_id}
    for user in users.values():
        if not own.isdisjoint(await server.core.user_rooms.joined(user.user_id)):
            shared.add(user.user_id)
    for user_id in [user.user_id for user in users.values()]:
        whole = await _profile(server, user_id)
        profile = {field: value for field, value in whole.items() if field in wanted}
        known = reader.profiles.get(user_id, {})
        if user_id not in shared:
            assert not known, f"{user_id} is not followed any more"
        elif not reader.lazy or user_id in reader.shown:
            assert known == profile
        else:
            assert all(profile.get(field) == value for field, value in known.items())


async def _profile(server: SyncServer, user_id: str) -> Profile:
    try:
        profile = await server.accounts.local_profiles.get(user_id)
    except NotFound:
        return {}
    return {field: msgspec.json.decode(value) for field, value in profile.items()}


async def _add_device(server: SyncServer, user: Requester) -> None:
    """Connections outlive a restart only for devices that exist."""

    async def add(db: Connection) -> None:
        await db.execute(
            "INSERT INTO devices (user_id, device_id, created_ms) VALUES (%s, %s, 0)",
            (user.user_id, user.device_id),
        )

    await server.db.run(add)
