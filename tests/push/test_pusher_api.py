"""Pushers over the API: set, changed, taken over, and deleted with what set them."""

from typing import Any
from unittest.mock import patch

import psycopg

from homeserver.push.pushers import directory
from tests.push.push_case import PushTestCase
from tests.push.push_gateway import pusher
from tests.support.reactor import pause

LOCAL_SETTINGS = "org.matrix.msc3890.local_notification_settings"


class PusherApiTests(PushTestCase):
    async def test_a_pusher_is_shown_as_it_was_set(self) -> None:
        """A settings page shows what the client has set, and which device it belongs to."""
        body = pusher(self.gateway, profile_tag="tag", data={"format": "event_id_only", "x": [1]})
        await self.alice.post("/pushers/set", body)

        (shown,) = (await self.alice.get("/pushers"))["pushers"]

        for name in ("enabled", "org.matrix.msc3881.enabled"):
            self.assertIs(shown.pop(name), True)
        for name in ("device_id", "org.matrix.msc3881.device_id"):
            self.assertEqual(shown.pop(name), self.alice.device_id)
        self.assertEqual(shown, body)
        self.assertEqual((await self.bob.get("/pushers"))["pushers"], [])

    async def test_clients_learn_that_pushers_can_be_switched(self) -> None:
        """Clients offer the switch only where the server knows it."""
        features = (await self.anybody.request("GET", "/_matrix/client/versions"))[
            "unstable_features"
        ]

        self.assertIs(features["org.matrix.msc3881"], True)
        self.assertIs(features["org.matrix.msc3881.stable"], True)

    async def test_what_is_set_is_checked(self) -> None:
        """A pusher that could never work is refused, and nothing without bound is stored."""
        missing, invalid = "M_MISSING_PARAM", "M_INVALID_PARAM"
        good = pusher(self.gateway)
        for errcode, change in (
            (missing, {"app_id": None}),
            (missing, {"pushkey": None}),
            (missing, {"lang": None}),
            (missing, {"app_display_name": None}),
            (missing, {"device_display_name": None}),
            (missing, {"data": None}),
            (missing, {"data": {}}),
            (invalid, {"app_id": "a" * 65}),
            (invalid, {"app_id": ""}),
            (invalid, {"pushkey": "ü" * 257}),
            (invalid, {"lang": "e" * 2000}),
            (invalid, {"kind": "pigeon"}),
            (invalid, {"kind": "email"}),
            (invalid, {"data": {**good["data"], "more": "x" * 9000}}),
            *(
                (invalid, {"data": {**good["data"], "format": wrong}})
                for wrong in (7, True, {}, ["event_id_only"])
            ),
            *(
                (invalid, {"data": {"url": url}})
                for url in (
                    7,
                    "",
                    "ftp://push.example/_matrix/push/v1/notify",
                    "https://push.example/",
                    "https://push.example/_matrix/push/v1/notify/",
                    "https://push.example/_matrix/push/v1/notify?key=1",
                    "https://user@push.example/_matrix/push/v1/notify",
                    "https:///_matrix/push/v1/notify",
                    "https://[::1/_matrix/push/v1/notify",
                    "https://push.example:99999/_matrix/push/v1/notify",
                )
            ),
            ("M_BAD_JSON", {"pushkey": "nul\0"}),
            ("M_BAD_JSON", {"append": "yes"}),
            ("M_BAD_JSON", {"data": "none"}),
        ):
            body: dict[str, Any] = {**good, **change}
            await self.assert_refused(errcode, self.alice.post("/pushers/set", body), 400)
        kind = {name: value for name, value in good.items() if name != "kind"}
        await self.assert_refused(missing, self.alice.post("/pushers/set", kind), 400)
        self.assertEqual(await self.pushkeys(), [])

    async def test_the_number_of_pushers_is_bounded(self) -> None:
        """A user cannot have the server send each message a thousand times."""
        for number in range(100):
            await self.set_pusher(f"key{number}")

        body = pusher(self.gateway, "one more")
        await self.assert_refused("M_USER_LIMIT_EXCEEDED", self.alice.post("/pushers/set", body))
        await self.set_pusher("key7", lang="de")
        self.assertEqual(len(await self.pushkeys()), 100)

    async def test_a_pusher_is_deleted_by_a_kind_of_null(self) -> None:
        """Signing out of notifications on one phone leaves the others."""
        await self.set_pusher("one")
        await self.set_pusher("two")
        body = {"kind": None, "app_id": "org.example.app", "pushkey": "one"}

        await self.bob.post("/pushers/set", body)
        self.assertEqual(await self.pushkeys(), ["one", "two"])
        await self.alice.post("/pushers/set", body)

        self.assertEqual(await self.pushkeys(), ["two"])
        await self.bob.say(self.room, "hello")
        await self.pushed(1)
        await self.assert_no_more(1)

    async def test_a_phone_that_changes_its_user_pushes_for_the_new_one_only(self) -> None:
        """The former user's messages are not shown to the next one."""
        await self.set_pusher()
        await self.carol.post("/pushers/set", pusher(self.gateway))

        self.assertEqual(await self.pushkeys(), [])
        await self.bob.say(self.room, "hello")
        await self.pushed(1)
        await self.assert_no_more(1)

    async def test_two_users_of_one_phone(self) -> None:
        """With `append` both have it."""
        await self.set_pusher()
        await self.carol.post("/pushers/set", pusher(self.gateway, append=True))
        await self.bob.say(self.room, "hello")

        await self.pushed(2)

        self.assertEqual(await self.pushkeys(), ["phone"])

    async def test_a_disabled_pusher_does_not_push(self) -> None:
        """A phone can be silenced from the desk, and is still that phone's."""
        await self.set_pusher()
        desk = await self.log_in(self.alice)
        await desk.post("/pushers/set", pusher(self.gateway, enabled=False))
        await self.bob.say(self.room, "silenced")
        await self.assert_no_more(0)

        unstable = {"org.matrix.msc3881.enabled": True}
        await desk.post("/pushers/set", {**pusher(self.gateway), **unstable})
        await self.bob.say(self.room, "hello")
        await self.pushed(1)

        self.assertEqual(self.gateway.bodies(), ["hello"])
        (shown,) = (await self.alice.get("/pushers"))["pushers"]
        self.assertEqual(shown["device_id"], self.alice.device_id)

    async def test_logging_out_deletes_the_pushers_of_the_device(self) -> None:
        """A phone that was signed out shows no messages any more, also after a restart."""
        phone = await self.log_in(self.alice)
        await self.set_pusher("desk")
        await phone.post("/pushers/set", pusher(self.gateway, "phone"))
        self.assertEqual(await self.pushkeys(), ["desk", "phone"])

        await phone.post("/logout")

        self.assertEqual(await self.pushkeys(), ["desk"])
        await self.bob.say(self.room, "hello")
        await self.pushed(1)
        await self.assert_no_more(1)
        await self.restart_server(self.alice)
        self.assertEqual(await self.pushkeys(), ["desk"])

    async def test_a_new_password_deletes_the_pushers_of_other_sessions(self) -> None:
        """A thief of the password is not sent the messages any more."""
        other = await self.log_in(self.alice)
        await self.set_pusher("mine")
        await other.post("/pushers/set", pusher(self.gateway, "other"))
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.alice.user_id},
            "password": "the password of alice",
        }

        await self.alice.post(
            "/account/password", {"auth": auth, "new_password": "another password"}
        )

        self.assertEqual(await self.pushkeys(), ["mine"])

    async def test_a_locked_account_pushes_nothing_until_it_is_unlocked(self) -> None:
        """A session that may read nothing is not shown messages by another door."""
        admin = await self.register_admin("root")
        lock = f"/_matrix/client/v1/admin/lock/{self.alice.user_id}"
        await self.set_pusher()
        await self.bob.say(self.room, "before")
        await self.pushed(1)

        await admin.request("PUT", lock, {"locked": True})
        await self.bob.say(self.room, "while it is locked")
        await self.assert_no_more(1)
        await admin.request("PUT", lock, {"locked": False})
        await self.bob.say(self.room, "after")

        await self.pushed(2)
        self.assertEqual(self.gateway.bodies(), ["before", "after"])
        self.assertEqual(await self.pushkeys(), ["phone"])

    async def test_a_deactivated_account_has_no_pushers(self) -> None:
        """Nothing is sent for an account that is gone."""
        await self.set_pusher()
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.alice.user_id},
            "password": "the password of alice",
        }

        await self.alice.post("/account/deactivate", {"auth": auth})
        await self.bob.say(self.room, "hello")

        await self.assert_no_more(0)

    async def test_settings_of_local_notifications_end_with_their_device(self) -> None:
        """Only those of the removed device, and other devices see it."""
        phone = await self.log_in(self.alice)
        path = f"/user/{self.alice.user_id}/account_data"
        for device in (self.alice, phone):
            await self.alice.put(
                f"{path}/{LOCAL_SETTINGS}.{device.device_id}", {"is_silenced": True}
            )
        await self.alice.put(f"{path}/org.example.{phone.device_id}", {"kept": True})
        since = (await self.alice.sync())["next_batch"]

        await phone.post("/logout")

        changed = (await self.alice.sync(since))["account_data"]["events"]
        self.assertEqual(changed, [{"type": f"{LOCAL_SETTINGS}.{phone.device_id}", "content": {}}])
        await pause(0)
        self.assertEqual(
            await self.alice.get(f"{path}/{LOCAL_SETTINGS}.{self.alice.device_id}"),
            {"is_silenced": True},
        )

    async def test_a_command_that_removes_devices_is_noticed(self) -> None:
        """A command is another process: what it does is not in this one's log."""
        await self.set_pusher()
        await self.bob.say(self.room, "hello")
        await self.pushed(1)
        with psycopg.connect(self.dsn) as connection:
            connection.execute("DELETE FROM devices WHERE user_id = %s", (self.alice.user_id,))

        with patch.object(directory, "FRESH_SECONDS", -1.0):
            await self.bob.say(self.room, "to nobody")
            await self.assert_no_more(1)
