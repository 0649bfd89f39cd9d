"""Another implementation of a homeserver as a process: the package matrix-synapse.

It is installed in a separate virtual environment, `.venv-peer`, by `make peer`: its dependencies
differ from those of this server. Only its documented configuration is used:
https://element-hq.github.io/synapse/latest/usage/configuration/config_documentation.html
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.certificates import CertificateAuthority, CertificateFiles
from tests.support.program import CHECKOUT, SHARED_SECRET, Program

PYTHON = CHECKOUT / ".venv-peer" / "bin" / "python"
UNLIMITED = {"per_second": 1_000_000, "burst_count": 1_000_000}
RETRY_SECONDS = 1


def is_peer_installed() -> bool:
    """Whether `make peer` has installed the package."""
    return (CHECKOUT / ".venv-peer" / ".installed").exists()


class PeerProcess(Program):
    """One Synapse with its own directory, port and SQLite database.

    `server_name` is an address with a port at which other servers reach it: its own port, or that
    of a proxy.
    """

    def __init__(
        self,
        directory: Path,
        authority: CertificateAuthority,
        certificate: CertificateFiles,
        *,
        port: int,
        server_name: str,
    ) -> None:
        super().__init__(directory, trusting=authority.client_context(), port=port)
        self.server_name = server_name
        self._write(
            "homeserver.yaml", _settings(directory, port, server_name, authority, certificate)
        )
        self._write("log.yaml", _log_settings(directory))

    @property
    def command(self) -> list[str]:
        """The ordinary way to run it in the foreground."""
        config = str(self.directory / "homeserver.yaml")
        return [str(PYTHON), "-m", "synapse.app.homeserver", "--config-path", config]

    @property
    def environment(self) -> Mapping[str, str]:
        """Its Python is to find its own packages only."""
        return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def _write(self, name: str, settings: dict[str, Any]) -> None:
        # JSON is YAML.
        (self.directory / name).write_text(json.dumps(settings, indent=2))


def _settings(
    directory: Path,
    port: int,
    server_name: str,
    authority: CertificateAuthority,
    certificate: CertificateFiles,
) -> dict[str, Any]:
    return {
        "server_name": server_name,
        "pid_file": str(directory / "synapse.pid"),
        "signing_key_path": str(directory / "signing.key"),
        "log_config": str(directory / "log.yaml"),
        "media_store_path": str(directory / "media"),
        "database": {"name": "sqlite3", "args": {"database": str(directory / "synapse.db")}},
        "listeners": [
            {
                "port": port,
                "bind_addresses": ["127.0.0.1"],
                "type": "http",
                "tls": True,
                "resources": [{"names": ["client", "federation"], "compress": False}],
            }
        ],
        "tls_certificate_path": str(certificate.certificate),
        "tls_private_key_path": str(certificate.private_key),
        "federation_custom_ca_list": [str(authority.path)],
        # All clients have the address 127.0.0.1.
        "ip_range_blacklist": [],
        "federation_ip_range_blacklist": [],
        "trusted_key_servers": [],
        "federation": {
            "destination_min_retry_interval": f"{RETRY_SECONDS}s",
            "destination_max_retry_interval": f"{RETRY_SECONDS}s",
            "destination_retry_multiplier": 1,
            "max_short_retries": 0,
            "max_long_retries": 0,
            "client_timeout": "10s",
        },
        "registration_shared_secret": SHARED_SECRET,
        # Real clients register by themselves.
        "enable_registration": True,
        "enable_registration_without_verification": True,
        "macaroon_secret_key": "of no value",
        "form_secret": "of no value",
        "report_stats": False,
        "bcrypt_rounds": 4,
        "presence": {"enabled": True},
        "allow_public_rooms_over_federation": True,
        "allow_public_rooms_without_auth": True,
        "room_list_publication_rules": [{"action": "allow"}],
        "enable_room_list_search": True,
        **_no_limits(),
    }


def _no_limits() -> dict[str, Any]:
    both = {"local": UNLIMITED, "remote": UNLIMITED}
    return {
        "rc_message": UNLIMITED,
        "rc_registration": UNLIMITED,
        "rc_login": {"address": UNLIMITED, "account": UNLIMITED, "failed_attempts": UNLIMITED},
        "rc_admin_redaction": UNLIMITED,
        "rc_room_creation": UNLIMITED,
        "rc_joins": both,
        "rc_joins_per_room": UNLIMITED,
        "rc_invites": {"per_room": UNLIMITED, "per_user": UNLIMITED, "per_issuer": UNLIMITED},
        "rc_presence": {"per_user": UNLIMITED},
        "rc_federation": {
            "window_size": 1000,
            "sleep_limit": 1_000_000,
            "sleep_delay": 1,
            "reject_limit": 1_000_000,
            "concurrent": 50,
        },
        "federation_rr_transactions_per_room_per_second": 1_000,
    }


def _log_settings(directory: Path) -> dict[str, Any]:
    return {
        "version": 1,
        "formatters": {
            "plain": {"format": "%(asctime)s %(name)s %(levelname)s %(request)s %(message)s"}
        },
        "handlers": {
            "file": {
                "class": "logging.FileHandler",
                "formatter": "plain",
                "filename": str(directory / "server.log"),
            }
        },
        "root": {"level": "INFO", "handlers": ["file"]},
        "disable_existing_loggers": False,
    }
