"""`homeserver doctor`: checks an installation and suggests fixes.

It works whether or not the server is running. It changes nothing unless `--repair` is given, and
then only data that can be derived from the rest of the database.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from homeserver.cli.configuration import find_config, load_installed
from homeserver.cli.doctor.appservice_checks import (
    check_reachable,
    check_registrations,
    to_be_reached,
)
from homeserver.cli.doctor.certificate_checks import check_acme
from homeserver.cli.doctor.database_checks import check_database
from homeserver.cli.doctor.federation_checks import check_federation, own_name_to_check
from homeserver.cli.doctor.file_checks import check_config_file, check_data_dir, check_signing_key
from homeserver.cli.doctor.findings import Finding, Severity, ok, problem, warning
from homeserver.cli.doctor.mail_checks import check_mail
from homeserver.cli.doctor.media_checks import check_bucket
from homeserver.cli.doctor.memory_checks import check_memory
from homeserver.cli.doctor.network_checks import check_listeners, check_well_known
from homeserver.cli.doctor.page_checks import check_pages
from homeserver.cli.doctor.turn_checks import check_turn
from homeserver.cli.reactor import run_in_reactor
from homeserver.config.errors import ConfigError
from homeserver.config.hints import homeserver_command
from homeserver.config.loading import load_settings
from homeserver.config.settings import Settings

NEW_CONFIG = Path("NEW_FOLDER", "homeserver.yaml")


def doctor(config: Path | None, server: str | None = None, *, repair: bool = False) -> int:
    """Print all findings, also about another `server`; the exit status is 1 if one is a problem.

    Raises `CommandError` if there is no server to check.
    """
    path = find_config(config)
    try:
        settings = load_installed(config)
    except ConfigError:
        settings = None  # `examine` reports the errors
    worst = 0

    def report(finding: Finding) -> None:
        nonlocal worst
        print(finding, flush=True)
        worst |= finding.severity is Severity.PROBLEM

    for finding in examine(path, repair=repair):
        report(finding)
    if settings is None:
        return worst
    appservices = to_be_reached(settings)
    subject = server or own_name_to_check(settings)

    async def check_connections(reactor: Any) -> None:
        for finding in await check_reachable(reactor, settings, appservices):
            report(finding)
        if settings.single_sign_on.providers:
            from homeserver.cli.doctor.single_sign_on_checks import check_identity_providers

            for finding in await check_identity_providers(reactor, settings):
                report(finding)
        if subject is not None:
            await check_federation(reactor, settings, subject, report)

    if appservices or subject is not None or settings.single_sign_on.providers:
        run_in_reactor(check_connections)
    return worst


def examine(config: Path | None, *, repair: bool = False) -> Iterator[Finding]:
    """All findings about an installation, one after the other."""
    try:
        settings = load_settings(config)
    except ConfigError as error:
        for line in str(error).splitlines():
            yield problem("configuration", line, "correct the file; see docs/configuration.md")
        return
    yield ok("configuration", str(config) if config else "none; every setting has its default")
    yield from check_config_file(config, settings)
    yield from _check_server_name(settings)
    yield check_signing_key(config, settings)
    yield check_data_dir(settings)
    yield from check_database(config, settings, repair=repair)
    yield from check_listeners(settings)
    yield from check_acme(settings)
    yield from check_memory(settings)
    yield from check_well_known(settings)
    yield from check_pages(settings)
    yield from check_mail(settings)
    yield from check_turn(settings)
    yield from check_bucket(settings)
    yield from check_registrations(settings)


def _check_server_name(settings: Settings) -> Iterator[Finding]:
    if settings.server_name == "localhost":
        another = homeserver_command("init", "SERVER_NAME", config=NEW_CONFIG)
        yield warning(
            "server name",
            "localhost can be used on this machine alone",
            f"it cannot be changed; to serve others, create a server in a new directory: {another}",
        )
