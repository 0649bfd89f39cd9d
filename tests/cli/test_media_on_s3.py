"""`homeserver media copy-to-s3`, and what the doctor says of a bucket."""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from homeserver.cli.doctor.media_checks import check_bucket
from homeserver.config.sections.media import MediaSettings
from homeserver.config.sections.s3 import S3Settings
from homeserver.config.settings import Settings
from tests.cli.command_line import homeserver
from tests.media.s3.fake_s3 import FailingS3, Fault, fails_with, keys_in, new_bucket, s3_client


@pytest.fixture
def bucket() -> dict[str, Any]:
    """The settings of a new bucket."""
    return new_bucket()


def add_content(folder: Path, content: bytes) -> str:
    """Have a content in a media folder; its path."""
    digits = hashlib.sha256(content).hexdigest()
    path = f"content/{digits[:2]}/{digits[2:]}"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)
    return path


def copy(folder: Path, bucket: dict[str, Any], name: str = "a") -> subprocess.CompletedProcess[str]:
    """Copy a media folder."""
    config = folder / "homeserver.yaml"
    media = {"folder": str(folder / "media"), "s3": bucket}
    config.write_text(json.dumps({"server_name": name, "media": media}))
    return homeserver("media", "copy-to-s3", "--config", config)


def test_a_folder_is_copied_once(tmp_path: Path, bucket: dict[str, Any]) -> None:
    """An operator can repeat the command until the server is switched over."""
    contents = [b"", b"one", os.urandom(9_000_000)]
    paths = [add_content(tmp_path / "media", content) for content in contents]
    (tmp_path / "media" / "content" / "README").write_text("of somebody else")

    first = copy(tmp_path, bucket)
    add_content(tmp_path / "media", b"later")
    second = copy(tmp_path, bucket)

    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == "Files copied: 3, 8.6 MiB; in the bucket before: 0\n"
    assert second.stdout == "Files copied: 1, 0.0 MiB; in the bucket before: 3\n"
    for path, content in zip(paths, contents, strict=True):
        stored = s3_client().get_object(Bucket=bucket["bucket"], Key=f"tests/{path}")
        assert stored["Body"].read() == content
    assert len(keys_in(bucket["bucket"])) == 4


def test_a_damaged_file_is_not_copied(tmp_path: Path, bucket: dict[str, Any]) -> None:
    """What is not what its name says is no file of anybody, and the others are copied."""
    path = add_content(tmp_path / "media", b"right")
    (tmp_path / "media" / path).write_bytes(b"wrong")
    add_content(tmp_path / "media", b"another")

    done = copy(tmp_path, bucket)

    assert done.returncode == 1
    assert done.stderr == f"damaged, and not copied: {tmp_path / 'media' / path}\n"
    assert len(keys_in(bucket["bucket"])) == 1


def test_an_object_that_is_not_whole_is_replaced(tmp_path: Path, bucket: dict[str, Any]) -> None:
    """A former attempt with another tool may have left anything."""
    path = add_content(tmp_path / "media", b"right")
    s3_client().put_object(Bucket=bucket["bucket"], Key=f"tests/{path}", Body=b"r")

    copy(tmp_path, bucket)

    stored = s3_client().get_object(Bucket=bucket["bucket"], Key=f"tests/{path}")
    assert stored["Body"].read() == b"right"


def test_the_bucket_of_another_server(tmp_path: Path, bucket: dict[str, Any]) -> None:
    """Its contents would be deleted by the other one."""
    copy(tmp_path, bucket, "other.org")

    done = copy(tmp_path, bucket)

    assert (done.returncode, "is the storage of other.org" in done.stderr) == (1, True)


def test_no_bucket(tmp_path: Path) -> None:
    """The message names what is missing."""
    done = copy(tmp_path, {})

    assert (done.returncode, "media.s3.bucket is not set" in done.stderr) == (1, True)


def lines_of(bucket: dict[str, Any], fault: Fault | None = None) -> list[str]:
    """What the doctor says of a bucket, at a service that has a fault."""
    relay = FailingS3()
    relay.fault = fault
    try:
        s3 = S3Settings(**{**bucket, "endpoint": relay.endpoint})
        settings = Settings(server_name="a", media=MediaSettings(s3=s3))
        return [str(finding) for finding in check_bucket(settings)]
    finally:
        relay.stop()


def test_the_doctor_tries_the_bucket(bucket: dict[str, Any]) -> None:
    """The probe leaves nothing."""
    lines = lines_of(bucket)

    assert lines == [f"ok       media: files can be stored in {bucket['bucket']}/tests/"]
    assert keys_in(bucket["bucket"], "") == []


@pytest.mark.parametrize(
    ("method", "permission"), [("PUT", "PutObject"), ("DELETE", "DeleteObject")]
)
def test_the_doctor_names_what_is_not_permitted(
    bucket: dict[str, Any], method: str, permission: str
) -> None:
    """An operator can correct the policy at once."""
    refuse = fails_with(403, "AccessDenied")

    (line,) = lines_of(bucket, lambda relay: relay.command == method and refuse(relay))

    assert line.startswith("problem  media: ")
    assert f"or permit s3:{permission}; see docs/media.md" in line


def test_the_doctor_finds_no_bucket_or_that_of_another(bucket: dict[str, Any]) -> None:
    """Both would be noticed too late."""
    missing = lines_of({**bucket, "bucket": "there-is-no-such-bucket"})
    s3_client().put_object(Bucket=bucket["bucket"], Key="tests/owner/other.org", Body=b"")

    other = lines_of(bucket)

    assert "does not exist" in missing[0]
    assert "is the storage of other.org" in other[0]
    assert lines_of({"bucket": None}) == []
