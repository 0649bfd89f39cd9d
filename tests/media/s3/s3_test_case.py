"""A server whose media are in a bucket."""

from typing import Any

from tests.media.media_client import MediaTestCase
from tests.media.s3.fake_s3 import FailingS3, keys_in, new_bucket, s3_client


class OnS3(MediaTestCase):
    """Has media of a server in a bucket, behind a relay that can fail; before another class."""

    async def setUp(self) -> None:
        self.s3 = FailingS3()
        self.addCleanup(self.s3.stop)
        self.bucket = new_bucket()
        await super().setUp()

    def _settings(self) -> Any:
        media = self.settings.get("media", {})
        s3 = {**self.bucket, "endpoint": self.s3.endpoint}
        self.settings = {**self.settings, "media": {**media, "storage": "s3", "s3": s3}}
        return super()._settings()

    def stored_files(self) -> list[str]:
        """The names of all stored files, as they would be in the media folder."""
        stored = [f"content/{key}" for key in keys_in(self.bucket["bucket"])]
        return sorted([*super().stored_files(), *stored])

    def lose(self, name: str) -> None:
        """Delete an object, as an accident would."""
        s3_client().delete_object(Bucket=self.bucket["bucket"], Key=f"tests/{name}")

    def restore(self, name: str, content: bytes) -> None:
        """Have an object under a key."""
        s3_client().put_object(Bucket=self.bucket["bucket"], Key=f"tests/{name}", Body=content)
