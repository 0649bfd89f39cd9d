"""The settings of URL previews: which pages are fetched, and how long their previews are kept."""

import ipaddress
from collections.abc import Iterator
from typing import Annotated

import msgspec

from homeserver.config.fields import Mistake, Section, doc

MEBIBYTE = 1_048_576


class UrlPreviewSettings(Section, frozen=True, kw_only=True):
    """Previews of web pages to which messages have links. The server fetches the pages."""

    enabled: Annotated[
        bool,
        doc(
            "Offer previews to clients. The server then requests any web page that a user names,"
            " and the page sees its address."
        ),
    ] = False
    denied_hosts: Annotated[
        tuple[str, ...],
        doc(
            "Hosts whose pages and pictures are not fetched, in ASCII (`xn--…`); `*` matches any"
            " text, `?` one character.",
            example='["*.internal.example.org", "tracker.example.net"]',
        ),
    ] = ()
    denied_networks: Annotated[
        tuple[str, ...],
        doc(
            "Networks to which no request is sent, beside private ones: public addresses of"
            " services that are not for everybody.",
            example='["198.51.100.0/24", "2001:db8::/32"]',
        ),
    ] = ()
    ports: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1, le=65_535)], ...],
        doc("Ports of web servers that are asked; an empty list is for all ports."),
    ] = (80, 443)
    accept_language: Annotated[
        str,
        doc(
            "The languages in which pages are requested, in the form of the header"
            " `Accept-Language`.",
            pattern=r"^[A-Za-z0-9*,;=. \-]{1,200}$",
        ),
    ] = "en"
    max_page: Annotated[
        int,
        doc(
            "Bytes of a page that are read; what follows is ignored.",
            unit="bytes",
            ge=65_536,
            le=10 * MEBIBYTE,
        ),
    ] = 2 * MEBIBYTE
    max_image: Annotated[
        int,
        doc(
            "The largest picture that is fetched for a preview; without it the preview has none.",
            unit="bytes",
            ge=0,
        ),
    ] = 5 * MEBIBYTE
    keep_days: Annotated[
        int,
        doc(
            "A preview is deleted with its picture after this time. It is offered as the present"
            " one for a day at most.",
            unit="days",
            ge=1,
        ),
    ] = 7
    max_previews: Annotated[
        int,
        doc("Previews that are kept; beyond it the oldest are deleted.", unit="previews", ge=100),
    ] = 50_000

    def mistakes(self) -> Iterator[Mistake]:
        for network in self.denied_networks:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                yield Mistake(
                    f"{network!r} is neither an address nor a network",
                    ("denied_networks",),
                )
