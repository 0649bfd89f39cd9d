"""Settings of listeners: the places where the server accepts connections."""

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from homeserver.config.fields import Mistake, Section, doc

Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
Resource = Literal["client", "federation", "health", "metrics", "acme"]


class Tls(Section, frozen=True, kw_only=True):
    """Certificate of a listener: two files, which are read again on SIGHUP, or `acme: true`."""

    certificate: Annotated[
        Path | None,
        doc(
            "PEM file with the certificate, then its chain.",
            default="none",
            example="tls.crt",
        ),
    ] = None
    private_key: Annotated[
        Path | None,
        doc(
            "PEM file with the private key, without a passphrase.",
            default="none",
            example="tls.key",
        ),
    ] = None
    acme: Annotated[
        bool, doc("Use the certificate that the server obtains by itself (`acme`).")
    ] = False

    def mistakes(self) -> Iterator[Mistake]:
        if self.acme:
            if self.certificate is not None or self.private_key is not None:
                yield Mistake(
                    "tls has either acme: true or files, not both",
                    ("acme", "certificate", "private_key"),
                )
        elif self.certificate is None or self.private_key is None:
            yield Mistake(
                "tls needs a certificate and a private_key, or acme: true",
                ("certificate", "private_key", "acme"),
            )


class Listener(Section, frozen=True, kw_only=True):
    """One place where the server accepts connections: a TCP port, or a Unix socket."""

    port: Annotated[
        Port | None,
        doc("TCP port; 0 takes any free one.", default="none", example="8008"),
    ] = None
    bind: Annotated[
        str | tuple[str, ...],
        doc(
            "Local address to listen on, or a list of them. In a list, an IPv6 address is"
            " ignored on a machine without IPv6. `0.0.0.0` and `::` mean all addresses."
        ),
    ] = ("127.0.0.1", "::1")
    path: Annotated[
        Path | None,
        doc("Unix socket, in place of a port.", default="none", example="/run/homeserver.sock"),
    ] = None
    mode: Annotated[str, doc("Permissions of the Unix socket, in octal.", pattern="^[0-7]{3}$")] = (
        "660"
    )
    tls: Annotated[
        Tls | None,
        doc(
            "Serve HTTPS here.",
            default="plain HTTP",
            example="{certificate: tls.crt, private_key: tls.key}",
        ),
    ] = None
    resources: Annotated[
        tuple[Resource, ...],
        doc(
            "The APIs on this listener: `client` (Client-Server API), `federation` (Server-Server"
            " API), `health` (`/health`), `metrics` (`/metrics`, for Prometheus), `acme` (at port"
            " 80: proof for the certificate that the server obtains by itself; other requests are"
            " redirected to HTTPS).",
            min_length=1,
        ),
    ] = ("client", "health")

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of `bind`, as a tuple."""
        return (self.bind,) if isinstance(self.bind, str) else self.bind

    def mistakes(self) -> Iterator[Mistake]:
        if (self.port is None) == (self.path is None):
            yield Mistake("a listener has either a port or a path", ("port", "path"))
        if self.path is not None and self.tls is not None:
            yield Mistake("a Unix socket does not support tls", ("path", "tls"))
        if self.tls is not None and "acme" in self.resources:
            yield Mistake(
                "the resource acme needs a listener without tls, for port 80", ("tls", "resources")
            )
        if not self.addresses:
            yield Mistake("bind names no address", ("bind",))
        for address in self.addresses:
            try:
                ipaddress.ip_address(address)
            except ValueError:
                yield Mistake(f"bind: {address!r} is not an IP address", ("bind",))
