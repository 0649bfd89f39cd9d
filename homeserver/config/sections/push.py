"""The settings of push notifications."""

from collections.abc import Iterator
from typing import Annotated
from urllib.parse import urlsplit

from homeserver.config.fields import Mistake, Section, doc


class PushSettings(Section, frozen=True, kw_only=True):
    """Push notifications to phones."""

    several_devices: Annotated[
        tuple[str, ...],
        doc(
            "Push gateways that notify all devices in a request, by scheme, host and port; a user's"
            " devices then share one. Many gateways read only the first.",
            example='["https://push.example.org"]',
        ),
    ] = ()

    def mistakes(self) -> Iterator[Mistake]:
        for gateway in self.several_devices:
            parts = urlsplit(gateway)
            is_named = parts.scheme in ("http", "https") and parts.netloc
            if not is_named or gateway != f"{parts.scheme}://{parts.netloc.lower()}":
                yield Mistake(
                    f"{gateway!r} is not a gateway such as https://push.example.org",
                    ("several_devices",),
                )
