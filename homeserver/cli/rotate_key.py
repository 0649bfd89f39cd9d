"""`homeserver rotate-key`: a new signing key, such as after a theft of the old one.

The old key stays published as a former key, so that old events can still be verified.

Spec: https://spec.matrix.org/v1.19/server-server-api/#publishing-keys
"""

import time
from pathlib import Path

from homeserver.cli.configuration import load_installed
from homeserver.config.signing_key import rotate_signing_key


def rotate_key(config: Path | None) -> int:
    """Replace the key, and print what to add to the configuration. Raises `ConfigError`."""
    settings = load_installed(config)
    old, key, kept = rotate_signing_key(settings.signing_key_path)
    expired_ts = int(time.time() * 1000)
    print(f"New signing key: {key.key_id} in {settings.signing_key_path}; keep a copy of it")
    print(f"Old signing key: {kept}")
    print("Add to the configuration, so that older events can still be verified, then start:")
    print()
    print("federation:")
    print("  old_verify_keys:")
    for each in old:
        print(_entry(each.key_id, each.verify_key, expired_ts))
    for known in settings.federation.old_verify_keys:
        print(_entry(known.key_id, known.key, known.expired_ts))
    return 0


def _entry(key_id: str, key: str, expired_ts: int) -> str:
    return f"    - {{key_id: '{key_id}', key: {key}, expired_ts: {expired_ts}}}"
