"""The retention of messages for devices that do not come back, on a real database."""

from twisted.internet.task import Clock

from homeserver.config.settings import EncryptionSettings
from homeserver.encryption.message_retention import DAY_SECONDS, MessageRetention
from homeserver.storage.accounts.devices import insert_device
from homeserver.storage.accounts.users import User, insert_user
from homeserver.storage.database.batch import Batch
from homeserver.storage.encryption.to_device import INSERT_MESSAGE, messages_after
from homeserver.streams.positions import EPOCH_SECONDS, MAX_POSITION, position_at
from tests.support.postgres import DatabaseTestCase

ALICE = "@alice:example.org"
NOW = EPOCH_SECONDS + 500 * DAY_SECONDS
SETTINGS = EncryptionSettings(to_device_days=100, to_device_messages=1_000)


class MessageRetentionTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.db.run(insert_user, User(ALICE, 0))
        for device_id in ("PHONE", "LAPTOP"):
            await self.db.run(insert_device, ALICE, device_id, None, 0)
        clock = Clock()
        clock.advance(NOW)
        self.retention = MessageRetention(self.db, clock, SETTINGS)

    async def send(self, device_id: str, *ages: float) -> None:
        """Store messages of these ages, in days."""
        batch = Batch()
        for age in ages:
            position = position_at(NOW - age * DAY_SECONDS)
            batch.add(INSERT_MESSAGE.row(ALICE, device_id, position, b"%g" % age))
        await self.db.write_batch(batch)

    async def waiting(self, device_id: str) -> list[float]:
        """The ages of the messages that wait for a device."""
        rows = await self.db.run(messages_after, ALICE, device_id, 0, MAX_POSITION, 10_000)
        return [float(row.message) for row in rows]

    async def test_messages_that_nobody_fetched_are_deleted(self) -> None:
        """A phone in a drawer does not fill the disk; younger messages stay, in their order."""
        await self.send("PHONE", 200, 101, 99, 1)

        await self.retention.clean_up()

        self.assertEqual(await self.waiting("PHONE"), [99, 1])

    async def test_of_too_many_messages_the_newest_stay(self) -> None:
        """A flood of one device costs no other device its messages."""
        await self.send("PHONE", *(50 - number / 1_000 for number in range(1_500)))
        await self.send("LAPTOP", 60, 40)

        await self.retention.clean_up()

        kept = await self.waiting("PHONE")
        self.assertEqual((len(kept), kept[0]), (1_000, 49.5))
        self.assertEqual(await self.waiting("LAPTOP"), [60, 40])
