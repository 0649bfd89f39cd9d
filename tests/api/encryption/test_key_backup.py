"""Key backups over the API: as two devices of a user see them, and what others may not."""

from typing import Any
from urllib.parse import quote

import msgspec

from tests.support.actors import Actor
from tests.support.server import ServerTestCase

ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"
AUTH_DATA = {"public_key": "abcdefg", "signatures": {"@alice:example.org": {"ed25519:X": "s"}}}
ROOM, OTHER_ROOM = "!room:example.org", "!gibt/es nicht:example.org"


def key(index: int = 0, *, verified: bool = True, **session_data: Any) -> dict[str, Any]:
    """The data of a key."""
    return {
        "first_message_index": index,
        "forwarded_count": 0,
        "is_verified": verified,
        "session_data": session_data,
    }


def keys_path(version: str | None, *ids: str) -> str:
    """The path of all keys, of a room's, or of one."""
    path = "/".join(["/room_keys/keys", *(quote(each, safe="") for each in ids)])
    return path if version is None else f"{path}?version={quote(version)}"


class KeyBackupTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")

    async def create(self, actor: Actor | None = None) -> str:
        body = {"algorithm": ALGORITHM, "auth_data": AUTH_DATA}
        answer = await (actor or self.alice).post("/room_keys/version", body)
        version: str = answer["version"]
        return version

    async def keys(self, actor: Actor, version: str, *ids: str) -> Any:
        return await actor.request("GET", f"/_matrix/client/v3{keys_path(version, *ids)}")

    async def test_another_device_finds_the_backup_and_its_keys(self) -> None:
        """A user who logs in on a new device reads the messages of before."""
        phone = await self.log_in(self.alice)
        await self.assert_refused("M_NOT_FOUND", phone.get("/room_keys/version"), 404)
        version = await self.create()
        rooms = {
            ROOM: {"sessions": {"a/b": key(3, ciphertext="c"), "é": key()}},
            OTHER_ROOM: {"sessions": {"c": key(verified=False)}},
        }
        counts = await self.alice.put(keys_path(version), {"rooms": rooms})

        backup = await phone.get("/room_keys/version")

        self.assertEqual(
            backup,
            {
                "algorithm": ALGORITHM,
                "auth_data": AUTH_DATA,
                "version": version,
                "count": 3,
                "etag": counts["etag"],
            },
        )
        self.assertEqual(counts, {"etag": backup["etag"], "count": 3})
        self.assertEqual(await phone.get(f"/room_keys/version/{version}"), backup)
        self.assertEqual(await self.keys(phone, version), {"rooms": rooms})
        self.assertEqual(await self.keys(phone, version, ROOM), rooms[ROOM])
        self.assertEqual(await self.keys(phone, version, ROOM, "a/b"), key(3, ciphertext="c"))

    async def test_keys_are_stored_by_session_by_room_or_for_all_rooms(self) -> None:
        """Clients choose the shape; each gives the new etag and number."""
        version = await self.create()
        empty = await self.alice.get("/room_keys/version")

        one = await self.alice.put(keys_path(version, ROOM, "a"), key())
        some = await self.alice.put(keys_path(version, ROOM), {"sessions": {"b": key()}})
        rooms = {ROOM: {"sessions": {"b": key()}}, OTHER_ROOM: {"sessions": {"b": key()}}}
        all_ = await self.alice.put(keys_path(version), {"rooms": rooms})
        same = await self.alice.put(keys_path(version), {"rooms": rooms})

        self.assertEqual([each["count"] for each in (one, some, all_)], [1, 2, 3])
        self.assertEqual(len({each["etag"] for each in (empty, one, some, all_)}), 4)
        self.assertEqual(same, all_)

    async def test_keys_are_deleted_by_session_by_room_or_all(self) -> None:
        """Without keys the results are empty, except for that of one key."""
        version = await self.create()
        rooms = {
            ROOM: {"sessions": {"a": key(), "b": key()}},
            OTHER_ROOM: {"sessions": {"a": key()}},
        }
        await self.alice.put(keys_path(version), {"rooms": rooms})

        left = [
            (await self.alice.delete(keys_path(version, *ids)))["count"]
            for ids in ((ROOM, "a"), (ROOM, "a"), (ROOM,), ())
        ]

        self.assertEqual(left, [2, 2, 1, 0])
        self.assertEqual(await self.keys(self.alice, version), {"rooms": {}})
        self.assertEqual(await self.keys(self.alice, version, ROOM), {"sessions": {}})
        await self.assert_refused("M_NOT_FOUND", self.keys(self.alice, version, ROOM, "a"), 404)

    async def test_a_backup_that_is_replaced_can_be_read_but_not_written(self) -> None:
        """The refusal names the current version, so that the client can look at it."""
        first = await self.create()
        await self.alice.put(keys_path(first, ROOM, "a"), key())
        second = await self.create()

        for path, body in (
            (keys_path(first), {"rooms": {}}),
            (keys_path(first, ROOM), {"sessions": {"b": key()}}),
            (keys_path(first, ROOM, "b"), key()),
        ):
            refused = await self.assert_refused(
                "M_WRONG_ROOM_KEYS_VERSION", self.alice.put(path, body), 403
            )
            self.assertEqual(refused.body["current_version"], second)

        self.assertEqual(await self.keys(self.alice, first, ROOM, "a"), key())
        await self.alice.delete(f"/room_keys/version/{second}")
        await self.alice.put(keys_path(first, ROOM, "b"), key())

    async def test_a_backup_is_changed_and_deleted(self) -> None:
        """Only `auth_data` can be changed; deleting it twice is no error."""
        version = await self.create()
        path = f"/room_keys/version/{version}"
        body = {"algorithm": ALGORITHM, "auth_data": {"public_key": "b"}}

        self.assertEqual(await self.alice.put(path, body), {})
        self.assertEqual(await self.alice.put(path, {**body, "version": version}), {})

        self.assertEqual((await self.alice.get(path))["auth_data"], {"public_key": "b"})
        for wrong in ({"version": "7"}, {"algorithm": "org.example"}):
            await self.assert_refused("M_INVALID_PARAM", self.alice.put(path, body | wrong), 400)
        await self.assert_refused("M_BAD_JSON", self.alice.put(path, {"algorithm": ALGORITHM}), 400)
        for _ in range(2):
            self.assertEqual(await self.alice.delete(path), {})
        for attempt in (
            self.alice.get(path),
            self.alice.put(path, body),
            self.keys(self.alice, version),
            self.keys(self.alice, version, ROOM),
            self.alice.delete(keys_path(version)),
            self.alice.put(keys_path(version), {"rooms": {}}),
            self.alice.delete("/room_keys/version/7"),
        ):
            await self.assert_refused("M_NOT_FOUND", attempt, 404)

    async def test_opaque_data_come_back_byte_for_byte(self) -> None:
        """What is encrypted or signed must not be rewritten, whatever is in it."""
        opaque = b'{"b" : 1.0, "a":"\\u0000\\u00e9", "n":[1e2 ], "a":"\xc3\xa9"}'
        url = "/_matrix/client/v3"
        body = b'{"algorithm": "%s", "auth_data": %s }' % (ALGORITHM.encode(), opaque)
        answer = await self.alice.request("POST", f"{url}/room_keys/version", body)
        version = answer["version"]
        data = (
            b'{"first_message_index":1,"forwarded_count":0,"is_verified":false,"session_data":%s}'
            % opaque
        )
        await self.alice.request("PUT", url + keys_path(version, ROOM, "s"), data)

        received = {
            path: await self.raw(path)
            for path in (
                "/room_keys/version",
                keys_path(version),
                keys_path(version, ROOM),
                keys_path(version, ROOM, "s"),
            )
        }

        for path, text in received.items():
            self.assertIn(opaque, text, path)

    async def test_malformed_requests_are_refused(self) -> None:
        """A client learns what is wrong; nothing of the request is stored."""
        version = await self.create()
        for path in (keys_path(None), keys_path(None, ROOM), keys_path(None, ROOM, "s")):
            await self.assert_refused("M_MISSING_PARAM", self.alice.get(path), 400)
        for session in (
            {**key(), "is_verified": 1},
            {**key(), "first_message_index": -1},
            {name: value for name, value in key().items() if name != "forwarded_count"},
        ):
            attempt = self.alice.put(keys_path(version, ROOM, "s"), session)
            await self.assert_refused("M_BAD_JSON", attempt, 400)
        for sessions in ({"\0": key()}, {"": key()}):
            attempt = self.alice.put(keys_path(version, ROOM), {"sessions": sessions})
            await self.assert_refused("M_BAD_JSON", attempt, 400)

        self.assertEqual(await self.keys(self.alice, version), {"rooms": {}})

    async def test_others_have_no_part_in_it(self) -> None:
        """Another user with the same version sees nothing; guests have no backups."""
        version = await self.create()
        await self.alice.put(keys_path(version, ROOM, "s"), key())
        bob = await self.register("bob")
        self.assertEqual(await self.create(bob), version)

        self.assertEqual(await self.keys(bob, version), {"rooms": {}})
        await self.assert_refused("M_NOT_FOUND", self.keys(bob, version, ROOM, "s"), 404)
        guest = await self.register_guest()
        await self.assert_refused("M_GUEST_ACCESS_FORBIDDEN", self.create(guest), 403)
        attempt = self.anybody.get("/room_keys/version")
        await self.assert_refused("M_MISSING_TOKEN", attempt, 401)

    async def test_a_suspended_user_has_a_backup(self) -> None:
        """A suspended user may not send, but does not lose what they have."""
        admin = await self.register_admin("admin")
        path = f"/_matrix/client/v1/admin/suspend/{quote(self.alice.user_id)}"
        await admin.request("PUT", path, {"suspended": True})

        version = await self.create()

        await self.alice.put(keys_path(version, ROOM, "s"), key())
        self.assertEqual(await self.keys(self.alice, version, ROOM, "s"), key())

    async def test_many_keys_are_read_at_once(self) -> None:
        """A new device restores everything with one request."""
        version = await self.create()
        rooms = {
            f"!{room}:example.org": {
                "sessions": {f"s{number}": key(ciphertext="x" * 400) for number in range(600)}
            }
            for room in "abc"
        }
        for room, sessions in rooms.items():
            await self.alice.put(keys_path(version, room), sessions)

        self.assertEqual(await self.keys(self.alice, version), {"rooms": rooms})
        self.assertEqual(
            await self.keys(self.alice, version, "!b:example.org"), rooms["!b:example.org"]
        )

    async def test_the_backup_survives_a_restart(self) -> None:
        """It is there when all devices are lost, whatever happens to the server."""
        version = await self.create()
        before = await self.alice.put(keys_path(version, ROOM, "s"), key())

        await self.restart_server(self.alice)

        after = await self.alice.get("/room_keys/version")
        self.assertEqual((after["etag"], after["count"]), (before["etag"], before["count"]))
        self.assertEqual(await self.keys(self.alice, version, ROOM, "s"), key())

    async def test_deactivation_deletes_the_backup(self) -> None:
        """Nobody can log in to read it any more."""
        version = await self.create()
        await self.alice.put(keys_path(version, ROOM, "s"), key())
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.alice.user_id},
            "password": "the password of alice",
        }

        await self.alice.post("/account/deactivate", {"auth": auth})

        self.assertEqual(await self.server.parts.db.run(_rows), 0)

    async def raw(self, path: str) -> bytes:
        """The bytes of a response."""
        response = await self._http.get(
            f"{self.url}/_matrix/client/v3{path}",
            headers={"Authorization": f"Bearer {self.alice.token}"},
        )
        content: bytes = await response.content()
        msgspec.json.decode(content)
        return content


async def _rows(db: Any) -> int:
    cursor = await db.execute(
        "SELECT (SELECT count(*) FROM key_backup_users) + (SELECT count(*) FROM key_backups)"
        " + (SELECT count(*) FROM backed_up_keys)"
    )
    [count] = await cursor.fetchone()
    return int(count)
