"""The client of S3: botocore, which is installed only where it is needed (`homeserver[s3]`).

It signs and retries requests, and finds the access key if none is configured. It blocks, so it is
used in threads (`bucket.py`).
"""

from typing import Any

from homeserver.config.errors import ConfigError
from homeserver.config.hints import pip_command
from homeserver.config.sections.s3 import S3Credentials, S3Settings

CONNECT_SECONDS = 5
READ_SECONDS = 20  # without a byte
ATTEMPTS = 3


def check_installed() -> None:
    """Raise `ConfigError`, which names the command that installs the library, if it is missing."""
    try:
        import botocore.session  # noqa: F401
    except ImportError:
        install = pip_command("install", "homeserver[s3]")
        raise ConfigError(f"media.storage: s3 needs another package: {install}") from None


def connect(settings: S3Settings, credentials: S3Credentials | None, connections: int) -> Any:
    """A client, which any number of threads may use; for threads. Raises errors of botocore."""
    import botocore.session
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=connections,
        tcp_keepalive=True,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        s3={"addressing_style": "path" if settings.path_style else "auto"},
        # Other services do not know the newer checksums: each object is sent with its MD5.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return botocore.session.get_session().create_client(
        "s3",
        region_name=settings.region,
        endpoint_url=settings.endpoint,
        aws_access_key_id=credentials.access_key_id if credentials else None,
        aws_secret_access_key=credentials.secret_access_key if credentials else None,
        config=config,
    )
