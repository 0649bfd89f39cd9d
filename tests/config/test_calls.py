"""Settings of calls: what no client could use is reported at the start."""

import pytest

from homeserver.config.errors import ConfigError
from homeserver.config.loading import parse_settings

URIS = "uris: ['turn:turn.example.org']"


def test_addresses_and_a_secret_are_enough() -> None:
    """The usual set-up, next to coturn."""
    settings, _ = parse_settings(f"turn: {{{URIS}, shared_secret: north}}")

    assert settings.turn.uris == ("turn:turn.example.org",)


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        (f"turn: {{{URIS}}}", "clients need credentials"),
        (f"turn: {{{URIS}, username: u}}", "both a username and a password"),
        (f"turn: {{{URIS}, password: p}}", "both a username and a password"),
        (
            f"turn: {{{URIS}, shared_secret: s, shared_secret_file: f}}",
            "one of shared_secret, shared_secret_file and username",
        ),
        (
            f"turn: {{{URIS}, shared_secret: s, username: u, password: p}}",
            "one of shared_secret, shared_secret_file and username",
        ),
        ("turn: {uris: ['https://turn.example.org'], shared_secret: s}", "turn.uris"),
        (f"turn: {{{URIS}, shared_secret: s, lifetime: 5}}", "turn.lifetime"),
        ("matrix_rtc: {transports: [{url: x}]}", "a transport has a type"),
        ("matrix_rtc: {transports: [livekit]}", "matrix_rtc.transports"),
        ("delayed_events: {max_delay: 0}", "delayed_events.max_delay"),
    ],
)
def test_what_cannot_work_is_refused(text: str, reported: str) -> None:
    """The operator reads what is missing."""
    with pytest.raises(ConfigError, match=reported):
        parse_settings(text)
