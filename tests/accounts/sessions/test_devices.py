"""Devices: their list, their names, their removal, and who learns of it."""

from typing import Any

from homeserver.accounts.sessions.devices import (
    DeviceAdded,
    DeviceChange,
    DeviceRenamed,
    DevicesRemoved,
)
from homeserver.accounts.sessions.login_sessions import DeviceRequest
from homeserver.storage.accounts.profiles import SET_PROFILE_FIELD, load_profile
from homeserver.streams.durable_reader import ReaderMoved
from homeserver.streams.log import Log
from tests.accounts.support import ALICE, AccountsTestCase


class Note:
    """A companion that stores the user for whom it was prepared."""

    user_id = ""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def prepare(self, user_id: str) -> None:
        self.user_id = user_id

    def follow(self, change: DeviceChange) -> None:
        position = self._log.next_position()
        row = SET_PROFILE_FIELD.row(self.user_id, "org.example.note", b"1", position)
        self._log.append(ReaderMoved(position), [row])


class DevicesTests(AccountsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.entries: list[Any] = []
        self.phone = await self.user(device_id="PHONE")
        self.laptop = await self.sessions.open(ALICE, DeviceRequest("LAPTOP"))
        self.log.subscribe(self.entries.extend)

    async def test_a_log_in_is_published_if_it_adds_a_device(self) -> None:
        """Others learn that there is one more device to encrypt for; a log-in again is no news."""
        await self.sessions.open(ALICE, DeviceRequest("TABLET"))
        await self.sessions.open(ALICE, DeviceRequest("TABLET"))

        self.assertEqual(self.entries, [DeviceAdded(self.log.position, ALICE, "TABLET")])

    async def test_a_device_can_be_renamed(self) -> None:
        """A name that means something, for oneself and for those one writes to."""
        await self.devices.rename(ALICE, "PHONE", "Pocket")

        self.assertEqual((await self.devices.get(ALICE, "PHONE")).display_name, "Pocket")
        self.assertEqual(self.entries, [DeviceRenamed(self.log.position, ALICE, "PHONE")])

    async def test_the_same_name_again_changes_nothing(self) -> None:
        """Clients that set their name at every start wake no other device."""
        await self.devices.rename(ALICE, "PHONE", "Pocket")

        await self.devices.rename(ALICE, "PHONE", "Pocket")

        self.assertEqual(len(self.entries), 1)

    async def test_unknown_devices_are_not_found(self) -> None:
        """A device that another client removed is not found."""
        await self.refused(self.devices.get(ALICE, "NONE"), "M_NOT_FOUND", 404)
        await self.refused(self.devices.rename(ALICE, "NONE", "x"), "M_NOT_FOUND", 404)
        await self.refused(self.devices.rename(ALICE, "PHONE", "x" * 1025), "M_INVALID_PARAM", 400)

    async def test_removing_a_device_logs_it_out_and_is_published(self) -> None:
        """A lost phone is logged out at once, and other users stop encrypting for it."""
        await self.caller(self.phone)

        await self.devices.remove(ALICE, ["PHONE", "NEVER-WAS"])

        await self.refused(self.authenticate(self.phone.tokens.access_token), "M_UNKNOWN_TOKEN")
        self.assertEqual((await self.caller(self.laptop)).device_id, "LAPTOP")
        self.assertEqual(
            self.entries, [DevicesRemoved(self.log.position, ALICE, ("PHONE", "NEVER-WAS"))]
        )

    async def test_companions_are_written_with_the_removal(self) -> None:
        """Rows that a crash must not separate from the removal are in the same commit."""
        self.devices.accompany(Note(self.log))

        await self.devices.remove(ALICE, ["PHONE"])

        self.assertEqual((await self.db.run(load_profile, ALICE))["org.example.note"], b"1")

    async def test_removing_nothing_changes_nothing(self) -> None:
        """An empty list of devices is a legal request."""
        await self.devices.remove(ALICE, [])

        self.assertEqual(self.entries, [])
