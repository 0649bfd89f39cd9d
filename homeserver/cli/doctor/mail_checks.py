"""A check of the mail server: whether it responds, and would accept mails of this server.

https://www.rfc-editor.org/rfc/rfc5321
"""

import smtplib
import ssl
from collections.abc import Iterator

from homeserver.cli.doctor.findings import Finding, ok, problem
from homeserver.config.sections.contact import EmailSettings
from homeserver.config.settings import Settings

TIMEOUT = 5.0  # seconds


def check_mail(settings: Settings) -> Iterator[Finding]:
    """Check that mails can be sent, if mail is configured. Sends none."""
    email = settings.email
    if email.smtp_host is None:
        return
    place = f"{email.smtp_host}, port {email.smtp_port}"
    try:
        offered = _greet(email)
    except smtplib.SMTPAuthenticationError:
        yield problem(
            "mail", f"{place} refuses the password", "correct email.smtp_user and smtp_password"
        )
    except ssl.SSLError as error:
        yield problem(
            "mail", f"{place}: {error.reason or error}", "correct email.tls, or the certificate"
        )
    except (OSError, smtplib.SMTPException) as error:
        remark = str(error) or type(error).__name__
        yield problem(
            "mail", f"{place}: {remark}", "correct email.smtp_host, smtp_port and tls, or start it"
        )
    else:
        yield ok("mail", f"{place} answers{offered}")


def _greet(email: EmailSettings) -> str:
    """Greet the mail server as the server does; returns a remark on the connection.

    Raises `OSError` and `SMTPException`.
    """
    host = email.smtp_host or ""
    trusted = ssl.create_default_context()
    connection: smtplib.SMTP
    if email.tls == "implicit":
        connection = smtplib.SMTP_SSL(host, email.smtp_port, timeout=TIMEOUT, context=trusted)
    else:
        connection = smtplib.SMTP(host, email.smtp_port, timeout=TIMEOUT)
    with connection:
        connection.ehlo_or_helo_if_needed()
        encrypted = email.tls == "implicit"
        if email.tls == "required":
            connection.starttls(context=trusted)
            encrypted = True
        elif email.tls == "opportunistic" and connection.has_extn("starttls"):
            # As the server does: the certificate is not checked.
            connection.starttls(context=ssl._create_unverified_context())  # noqa: S323
            encrypted = True
        if email.smtp_user is not None:
            connection.login(email.smtp_user, email.smtp_password or "")
        connection.noop()
    return "" if encrypted else ", without encryption"
