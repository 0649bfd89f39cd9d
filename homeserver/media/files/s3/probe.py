"""A probe of a bucket: whether this server may do there what it needs, for the operator."""

import secrets
from collections.abc import Callable
from typing import Any

from homeserver.config.sections.s3 import S3Settings
from homeserver.media.files.content_storage import CONTENT
from homeserver.media.files.s3.client import check_installed, connect
from homeserver.media.files.s3.s3_storage import OWNER

CONTENT_OF_PROBE = b"written by homeserver doctor"


class ProbeFailed(Exception):
    """A request failed; the message says which one and why, and `permission` is what it needs."""

    def __init__(self, message: str, permission: str) -> None:
        super().__init__(message)
        self.permission = permission


def probe_bucket(settings: S3Settings, server_name: str) -> list[str]:
    """Write, read, list and delete an object; returns the names of other servers that use it.

    It blocks. Raises `ConfigError` or `ProbeFailed`.
    """
    check_installed()
    from botocore.exceptions import BotoCoreError, ClientError

    def attempt(permission: str, function: Callable[..., Any], **arguments: Any) -> Any:
        try:
            return function(Bucket=settings.bucket, **arguments)
        except (ClientError, BotoCoreError, OSError) as error:
            raise ProbeFailed(str(error), permission) from None

    try:
        client = connect(settings, settings.credentials(), 1)
    except (BotoCoreError, ValueError) as error:
        raise ProbeFailed(str(error), "") from None
    key = f"{settings.prefix}probe/{secrets.token_hex(8)}"
    owners, contents = f"{settings.prefix}{OWNER}", f"{settings.prefix}{CONTENT}/"
    listed = attempt("s3:ListBucket", client.list_objects_v2, Prefix=owners)
    attempt("s3:PutObject", client.put_object, Key=key, Body=CONTENT_OF_PROBE)
    try:
        got = attempt("s3:GetObject", client.get_object, Key=key, Range="bytes=0-6")
        if got["Body"].read() != CONTENT_OF_PROBE[:7]:
            raise ProbeFailed("a range of an object is not what was written", "s3:GetObject")
    finally:
        attempt("s3:DeleteObject", client.delete_object, Key=key)
    attempt("s3:ListBucketMultipartUploads", client.list_multipart_uploads, Prefix=contents)
    names = [each["Key"].removeprefix(owners) for each in listed.get("Contents", [])]
    return [name for name in names if name != server_name]
