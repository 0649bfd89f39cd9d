"""The settings of a bucket in S3, or in another service with its API."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from homeserver.config.errors import ConfigError
from homeserver.config.fields import Mistake, Section, doc


class S3Credentials(NamedTuple):
    """An access key."""

    access_key_id: str
    secret_access_key: str


class S3Settings(Section, frozen=True, kw_only=True):
    """The bucket of `storage: s3`.

    Without an access key here, that of the environment is used: `AWS_ACCESS_KEY_ID` and
    `AWS_SECRET_ACCESS_KEY`, a profile, or the role of the machine.
    """

    bucket: Annotated[
        Annotated[str, msgspec.Meta(min_length=3, max_length=255)] | None,
        doc("Name of the bucket, which must exist.", default="none", example="example-org-media"),
    ] = None
    region: Annotated[
        Annotated[str, msgspec.Meta(min_length=1)] | None,
        doc("Region of the bucket.", default="that of the environment", example="eu-central-1"),
    ] = None
    endpoint: Annotated[
        Annotated[str, msgspec.Meta(pattern="^https?://")] | None,
        doc(
            "Web address of a service other than Amazon's.",
            default="that of Amazon",
            example="https://s3.example.org",
        ),
    ] = None
    prefix: Annotated[
        str,
        doc(
            "Beginning of the keys of all objects, such as `media/`. Servers that share a bucket"
            " need different ones.",
            pattern="^([^/]+/)*$",
            max_length=500,
        ),
    ] = ""
    path_style: Annotated[
        bool,
        doc("Name the bucket in the path of URLs instead of the host, as some services need it."),
    ] = False
    access_key_id: Annotated[str | None, doc("Id of the access key.", default="none")] = None
    access_key_id_file: Annotated[
        Path | None,
        doc("File with the id of the access key.", default="none", example="/run/secrets/s3-id"),
    ] = None
    secret_access_key: Annotated[
        str | None, doc("The secret of the access key.", default="none")
    ] = None
    secret_access_key_file: Annotated[
        Path | None,
        doc(
            "File with the secret of the access key.",
            default="none",
            example="/run/secrets/s3-secret",
        ),
    ] = None

    def mistakes(self) -> Iterator[Mistake]:
        for name in ("access_key_id", "secret_access_key"):
            if getattr(self, name) is not None and getattr(self, f"{name}_file") is not None:
                yield Mistake(f"s3 needs {name} or {name}_file, not both", (name, f"{name}_file"))
        has_id = (self.access_key_id or self.access_key_id_file) is not None
        has_secret = (self.secret_access_key or self.secret_access_key_file) is not None
        if has_id != has_secret:
            yield Mistake(
                "s3 needs both an access_key_id and a secret_access_key, or neither",
                ("access_key_id", "secret_access_key"),
            )

    def credentials(self) -> S3Credentials | None:
        """The configured access key. Raises `ConfigError` if its files cannot be read."""
        key_id = self.access_key_id or _content(self.access_key_id_file)
        secret = self.secret_access_key or _content(self.secret_access_key_file)
        if key_id is None or secret is None:
            return None
        return S3Credentials(key_id, secret)


def _content(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        content = file.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"media.s3: cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"media.s3: {file} is not UTF-8 text") from None
    if not content:
        raise ConfigError(f"media.s3: {file} is empty")
    return content
