"""A check of the bucket for media: an object is written, read and deleted there."""

from collections.abc import Iterator

from homeserver.cli.doctor.findings import Finding, ok, problem
from homeserver.config.errors import ConfigError
from homeserver.config.settings import Settings
from homeserver.media.files.s3.probe import ProbeFailed, probe_bucket


def check_bucket(settings: Settings) -> Iterator[Finding]:
    """Check that media can be stored in the bucket, if there is one."""
    s3 = settings.media.s3
    if s3.bucket is None:
        return
    place = f"{s3.bucket}/{s3.prefix}"
    try:
        others = probe_bucket(s3, settings.server_name)
    except ConfigError as error:
        yield problem("media", str(error), "see docs/media.md")
    except ProbeFailed as error:
        fix = "correct media.s3" + (f", or permit {error.permission}" if error.permission else "")
        yield problem("media", f"{place}: {error}", f"{fix}; see docs/media.md")
    else:
        if others:
            text = f"{place} is the storage of {', '.join(others)}"
            yield problem("media", text, "choose another media.s3.prefix")
        else:
            yield ok("media", f"files can be stored in {place}")
