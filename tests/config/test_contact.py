"""Settings of e-mail: errors are reported before the first mail is to be sent."""

import pytest

from homeserver.config.errors import ConfigError
from homeserver.config.loading import parse_settings

BASEURL = "public_baseurl: https://matrix.example.org\n"


def test_a_mail_server_and_a_sender_are_enough() -> None:
    """The key of the sender is a reserved word of Python."""
    settings, _ = parse_settings(BASEURL + "email: {smtp_host: mx, from: A <a@example.org>}")

    assert settings.email.enabled
    assert settings.email.sender == "A <a@example.org>"


def test_without_a_mail_server_there_is_no_mail() -> None:
    """No mail is sent by accident."""
    assert not parse_settings("email: {from: a@example.org}")[0].email.enabled


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        (BASEURL + "email: {smtp_host: mx}", "email.from is missing"),
        (BASEURL + "email: {smtp_host: mx, from: nobody}", "email.from: not an e-mail address"),
        ("email: {smtp_host: mx, from: a@example.org}", "links in mails need public_baseurl"),
        (
            BASEURL + "email: {smtp_host: mx, from: a@example.org, smtp_user: a, tls: required}",
            "needs both a smtp_user and a smtp_password",
        ),
        (
            BASEURL
            + "email: {smtp_host: mx, from: a@example.org, smtp_user: a, smtp_password: swordfish}",
            "would be sent unencrypted",
        ),
        ("registration: {email_required: true}", "email has no smtp_host"),
    ],
)
def test_settings_that_cannot_work_are_reported(text: str, reported: str) -> None:
    """The operator gets a sentence at the start, without the password."""
    with pytest.raises(ConfigError) as refused:
        parse_settings(text)

    assert reported in str(refused.value)
    assert "swordfish" not in str(refused.value)
