"""One-time keys: no key is given out twice, whatever becomes of the batch that stores it."""

from homeserver.storage.accounts.devices import insert_device
from homeserver.storage.accounts.users import User, insert_user
from homeserver.storage.database.batch import Batch
from homeserver.storage.encryption.one_time_keys import (
    INSERT_ONE_TIME_KEY,
    WantedKey,
    take_one_time_keys,
)
from tests.support.postgres import DatabaseTestCase

ALICE, DEVICE = "@alice:example.org", "DEVICE"
WANTED = WantedKey(ALICE, DEVICE, "signed_curve25519")


class OneTimeKeyTests(DatabaseTestCase):
    async def test_batch_whose_outcome_is_unknown(self) -> None:
        """A key is claimed once its upload is published, so no second attempt brings it back."""
        await self.db.run(insert_user, User(ALICE, 0))
        await self.db.run(insert_device, ALICE, DEVICE, None, 0)
        published, unknown = self.upload(5, "published"), self.upload(7, "unknown")
        await self.db.write_batch(published)
        await self.db.write_batch(unknown)

        assert await self.take(upto=5) == ["published"]
        assert await self.take(upto=5) == []
        await self.db.write_batch(unknown)

        assert await self.take(upto=7) == ["unknown"]
        assert await self.take(upto=7) == []

    def upload(self, position: int, key_id: str) -> Batch:
        batch = Batch()
        batch.add(INSERT_ONE_TIME_KEY.row(*WANTED, position, key_id, b"{}"))
        return batch

    async def take(self, upto: int) -> list[str]:
        """The ids of claimed keys; as many are wanted as there ever were."""
        claimed = await self.db.run(take_one_time_keys, [WANTED, WANTED], upto)
        return [key.key_id for key in claimed]
