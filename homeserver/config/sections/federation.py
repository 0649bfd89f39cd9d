"""Settings of federation: the servers that this one communicates with, and how it verifies them.

Spec: https://spec.matrix.org/v1.19/server-server-api/#tls
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from homeserver.config.fields import Mistake, Section, doc
from homeserver.protocol.identifiers import is_valid_server_name


class OldVerifyKey(Section, frozen=True, kw_only=True):
    """A former signing key of this server."""

    key_id: Annotated[str, doc("Its id.", pattern="^ed25519:[A-Za-z0-9_]+$")]
    key: Annotated[str, doc("The public key in unpadded Base64.", pattern="^[A-Za-z0-9+/]{43}$")]
    expired_ts: Annotated[
        int, doc("The time of its last use.", unit="milliseconds since 1970", ge=0)
    ]


class FederationSettings(Section, frozen=True, kw_only=True):
    """Requests to and from other homeservers."""

    verify_certificates: Annotated[
        bool, doc("Check the certificates of other servers; set it to false in tests only.")
    ] = True
    ca_file: Annotated[
        Path | None,
        doc(
            "PEM file with the authorities that sign the certificates of other servers.",
            default="the authorities that the system trusts",
            example="/etc/homeserver/ca.pem",
        ),
    ] = None
    allow_private_addresses: Annotated[
        bool,
        doc(
            "Also connect to servers at private, loopback and link-local addresses: for a"
            " federation within one network."
        ),
    ] = False
    allow: Annotated[
        tuple[str, ...],
        doc(
            "Servers to federate with, as names without ports; `*` matches any characters. Empty"
            " means all.",
            example="[example.org, '*.example.com']",
        ),
    ] = ()
    deny: Annotated[
        tuple[str, ...],
        doc("Servers not to federate with, even if they are allowed.", example="['*.example.net']"),
    ] = ()
    delegated_to: Annotated[
        str | None,
        doc(
            "The host and port for other servers, as published in `/.well-known/matrix/server`"
            " of the server's name; without it that is not served.",
            example="matrix.example.org:443",
        ),
    ] = None
    trusted_key_servers: Annotated[
        tuple[str, ...],
        doc(
            "Notary servers that are trusted for the keys of servers that cannot be reached.",
            example="[matrix.org]",
        ),
    ] = ()
    old_verify_keys: Annotated[
        tuple[OldVerifyKey, ...],
        doc(
            "Former signing keys of this server; `homeserver rotate-key` prints what to write.",
            example=(
                "[{key_id: 'ed25519:a_1234', key: 6cWn8c4YXcLCjPVmzKxDd9hWcVbAB1RZQ9t1qhGUFQk, "
                "expired_ts: 1700000000000}]"
            ),
        ),
    ] = ()

    def mistakes(self) -> Iterator[Mistake]:
        if self.delegated_to is not None and not is_valid_server_name(self.delegated_to):
            yield Mistake(
                f"delegated_to: {self.delegated_to!r} is not a host with or without port",
                ("delegated_to",),
            )
        for name in self.trusted_key_servers:
            if not is_valid_server_name(name):
                yield Mistake(
                    f"trusted_key_servers: {name!r} is not a server name", ("trusted_key_servers",)
                )
