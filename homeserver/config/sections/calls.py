"""Settings of calls: the TURN server, delayed events, and the transports of MatrixRTC.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3voipturnserver
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from homeserver.config.fields import Mistake, Section, doc


class TurnSettings(Section, frozen=True, kw_only=True):
    """A TURN server for calls. Without `uris`, clients are given none.

    Users get their own short-lived credentials if the TURN server has a shared secret
    (`use-auth-secret` of coturn), and otherwise all the same user name and password.
    """

    uris: Annotated[
        tuple[Annotated[str, msgspec.Meta(pattern="^turns?:")], ...],
        doc(
            "Addresses of the TURN server. Empty means none.",
            example="['turn:turn.example.org?transport=udp']",
        ),
    ] = ()
    shared_secret: Annotated[
        str | None,
        doc(
            "The secret that this server shares with the TURN server (`static-auth-secret`).",
            default="none",
            example='"a long random string"',
        ),
    ] = None
    shared_secret_file: Annotated[
        Path | None,
        doc(
            "File with that secret, in place of `shared_secret`.",
            default="none",
        ),
    ] = None
    username: Annotated[
        str | None, doc("The user name of all users, without a shared secret.", default="none")
    ] = None
    password: Annotated[
        str | None, doc("The password of all users, without a shared secret.", default="none")
    ] = None
    lifetime: Annotated[
        int,
        doc(
            "The time for which a client may use its credentials; then it asks again.",
            unit="seconds",
            ge=60,
        ),
    ] = 86_400
    allow_guests: Annotated[bool, doc("Also give guests the credentials.")] = True

    def mistakes(self) -> Iterator[Mistake]:
        if (self.username is None) != (self.password is None):
            yield Mistake(
                "turn needs both a username and a password, or neither", ("username", "password")
            )
        ways = [self.shared_secret, self.shared_secret_file, self.username]
        given = len(ways) - ways.count(None)
        if given > 1:
            yield Mistake(
                "turn needs one of shared_secret, shared_secret_file and username, not several",
                ("shared_secret", "shared_secret_file", "username"),
            )
        if self.uris and not given:
            yield Mistake(
                "turn.uris: clients need credentials: shared_secret, or username and password",
                ("shared_secret", "shared_secret_file", "username"),
            )


class DelayedEventSettings(Section, frozen=True, kw_only=True):
    """Events that users schedule for later, such as the end of their part in a call."""

    max_delay: Annotated[
        int, doc("The longest time before an event is sent.", unit="seconds", ge=1, le=31_536_000)
    ] = 86_400
    max_scheduled: Annotated[
        int, doc("Scheduled events of one user; 0 switches the feature off.", ge=0, le=10_000)
    ] = 100


class MatrixRtcSettings(Section, frozen=True, kw_only=True):
    """Calls with many users (MatrixRTC), such as those of Element Call."""

    transports: Annotated[
        tuple[dict[str, Any], ...],
        doc(
            "Transports that clients may use, each with its `type` and what that needs; they are"
            " published in `/.well-known/matrix/client` as well.",
            example="[{type: livekit, livekit_service_url: 'https://rtc.example.org/livekit/jwt'}]",
        ),
    ] = ()

    def mistakes(self) -> Iterator[Mistake]:
        if not all(isinstance(each.get("type"), str) for each in self.transports):
            yield Mistake("a transport has a type, which is a text", ("transports",))
