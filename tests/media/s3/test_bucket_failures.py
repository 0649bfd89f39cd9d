"""What clients see of a bucket that fails, and what a server does that cannot use its bucket."""

import os
import re
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from homeserver.config.errors import ConfigError
from homeserver.config.fields import WrongSettings
from homeserver.config.sections.media import MediaSettings
from homeserver.config.sections.s3 import S3Settings
from homeserver.media.files.s3.bucket import PART_SIZE, Bucket, BucketUnavailable
from homeserver.media.files.s3.s3_storage import MAX_READ
from homeserver.storage.media.media import usage_of
from tests.media.media_client import CREATE, THUMBNAIL, UPLOAD, path_of
from tests.media.pictures import encode, halves
from tests.media.s3.fake_s3 import (
    FailingS3,
    Relay,
    answers,
    breaks_off,
    fails_with,
    new_bucket,
    unfinished_in,
)
from tests.media.s3.s3_test_case import OnS3

LARGE = 2 * PART_SIZE


class BucketFailureTests(OnS3):
    async def test_an_upload(self) -> None:
        """The client can try again, and nothing counts against its quota."""
        for content in (b"small", os.urandom(LARGE)):
            self.s3.fault = fails_with(500)
            refused = await self.send("POST", UPLOAD, content, by=self.alice)
            self.s3.fault = None

            self.assertEqual((refused.status, refused.errcode), (503, "M_UNKNOWN"))
            self.assertEqual(self.stored_files(), [])
            self.assertEqual(unfinished_in(self.bucket["bucket"]), [])
        usage = await self.server.parts.db.run(usage_of, self.alice.user_id)
        self.assertEqual((usage.files, usage.bytes), (0, 0))
        file = await self.upload(b"small")
        self.assertEqual((await self.download(file)).body, b"small")

    async def test_an_upload_that_something_else_responds_to(self) -> None:
        """A web page, or the way to one, is no sign that anything was stored."""
        page, nowhere = b"<html>Log in</html>", {"Location": f"{self.s3.endpoint}/log-in"}
        for fault in (answers(200, page), answers(200, b""), answers(302, page, **nowhere)):
            for content in (b"small", os.urandom(LARGE)):
                self.s3.fault = fault
                refused = await self.send("POST", UPLOAD, content, by=self.alice)

                self.assertEqual((refused.status, refused.errcode), (503, "M_UNKNOWN"))
        self.s3.fault = None
        usage = await self.server.parts.db.run(usage_of, self.alice.user_id)
        self.assertEqual((usage.files, usage.bytes), (0, 0))

    async def test_an_upload_to_an_address(self) -> None:
        """The address can still be used."""
        file = path_of((await self.send("POST", CREATE, b"", by=self.alice)).json["content_uri"])
        self.s3.fault = fails_with(403, "AccessDenied")
        refused = await self.send("PUT", f"{UPLOAD}/{file}", b"x", by=self.alice)
        self.s3.fault = None

        again = await self.send("PUT", f"{UPLOAD}/{file}", b"x", by=self.alice)

        self.assertEqual((refused.status, again.status), (503, 200))
        self.assertEqual((await self.download(file)).body, b"x")

    async def test_a_download(self) -> None:
        """It is an error that passes, not a file that is lost."""
        file = await self.upload(b"x")
        faults = (
            *(fails_with(500), fails_with(403, "AccessDenied"), breaks_off),
            *(answers(200, b"<html>Log in</html>"), answers(200, b"x", **{"Content-Length": None})),
        )
        for fault in faults:
            self.s3.fault = fault
            got = await self.download(file)

            self.assertEqual((got.status, got.errcode), (503, "M_UNKNOWN"))
        self.s3.fault = None
        self.assertEqual((await self.download(file)).body, b"x")

    async def test_a_download_that_fails_in_the_middle(self) -> None:
        """No client takes the first part of a film for the whole."""
        content = os.urandom(LARGE)
        file = await self.upload(content)
        first_range = f"bytes=0-{MAX_READ - 1}"
        self.s3.fault = lambda relay: (
            relay.headers.get("Range") != first_range and fails_with(500)(relay)
        )

        with self.assertRaises(Exception):  # noqa: B017  # of the HTTP client
            await self.download(file)

        self.s3.fault = None
        self.assertEqual((await self.download(file)).body, content)

    async def test_a_thumbnail(self) -> None:
        """A failure is not held against a picture."""
        file = await self.upload(encode(halves(1_000, 500)), "image/png")
        query = {"by": self.alice, "width": 64, "height": 64}
        self.s3.fault = fails_with(500)
        refused = await self.send("GET", f"{THUMBNAIL}/{file}", **query)
        self.s3.fault = None

        got = await self.send("GET", f"{THUMBNAIL}/{file}", **query)

        self.assertEqual((refused.status, got.status), (503, 200))
        self.assertEqual(len(self.stored_files()), 2)

    async def test_a_silent_service_delays_nobody_else(self) -> None:
        """Users chat and log in while files are not available."""
        file = await self.upload(b"x")
        hangs = True

        def hang(relay: Relay) -> bool:
            while hangs:
                time.sleep(0.05)
            return False

        self.s3.fault = hang
        downloads = [Deferred.fromCoroutine(self.download(file)) for _ in range(40)]
        while len(self.s3.requests) < 15:
            await deferLater(reactor, 0.01)

        await self.log_in(self.alice)
        await self.alice.say(await self.alice.create_room(), "hello")

        hangs = False
        for each in downloads:
            self.assertEqual((await each).body, b"x")

    async def test_a_row_follows_its_object(self) -> None:
        """There is never a file with an address and without content."""
        seen: list[Any] = []

        def look(relay: Relay) -> bool:
            with psycopg.connect(self.dsn) as connection:
                rows = connection.execute("SELECT count(*) FROM media").fetchone()
            seen.append((relay.command, rows, len(self.stored_files())))
            return False

        self.s3.fault = look
        file = await self.upload(b"x")
        self.s3.fault = None

        self.assertEqual(seen, [("PUT", (0,), 1)])  # what is stored is in `incoming`
        self.assertEqual((await self.download(file)).body, b"x")


class ListTests(TestCase):
    async def test_a_list_that_begins_again(self) -> None:
        """A service that does not know where to continue would be asked without end."""
        s3 = FailingS3()
        self.addCleanup(s3.stop)
        bucket = Bucket(reactor, S3Settings(**{**new_bucket(), "endpoint": s3.endpoint}))
        for key in ("a", "b"):
            await bucket.put_bytes(f"content/{key}", b"x")
        self.assertEqual(
            [each.key for each in await bucket.list_page("content/", "content/a")], ["content/b"]
        )

        def begin_again(relay: Relay) -> bool:
            relay.path = re.sub("start-after=[^&]*&?", "", relay.path)
            return False

        for fault in (
            begin_again,
            answers(200, b"<ListBucketResult><Contents/></ListBucketResult>"),
        ):
            s3.fault = fault
            with self.assertRaises(BucketUnavailable):
                await bucket.list_page("content/", "content/a")


def test_settings_that_do_not_fit() -> None:
    """Mistakes are noticed at the start."""
    wrong: list[dict[str, Any]] = [
        {"access_key_id": "a"},
        {"secret_access_key": "a"},
        {"access_key_id": "a", "access_key_id_file": Path("a"), "secret_access_key": "b"},
    ]

    for values in wrong:
        with pytest.raises(WrongSettings):
            S3Settings(bucket="abc", **values)
    with pytest.raises(WrongSettings):
        MediaSettings(storage="s3")


def test_an_access_key_in_files(tmp_path: Path) -> None:
    """Secrets of a container are files."""
    key_id, secret = tmp_path / "id", tmp_path / "secret"
    key_id.write_text("the id\n")
    settings = S3Settings(bucket="abc", access_key_id_file=key_id, secret_access_key_file=secret)

    with pytest.raises(ConfigError, match="cannot read"):
        settings.credentials()
    secret.write_text(" \n")
    with pytest.raises(ConfigError, match="is empty"):
        settings.credentials()
    secret.write_text("the secret\n")

    assert settings.credentials() == ("the id", "the secret")


def test_a_missing_package() -> None:
    """The message has the command that installs it."""
    with (
        patch.dict(sys.modules, {"botocore.session": None}),
        pytest.raises(ConfigError, match=r"pip install 'homeserver\[s3\]'"),
    ):
        Bucket(reactor, S3Settings(bucket="abc"))
