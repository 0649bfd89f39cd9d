"""Checks of single sign-on: whether each identity provider has what sign-ins need."""

from typing import Any

from homeserver.cli.doctor.findings import Finding, ok, problem
from homeserver.config.errors import ConfigError
from homeserver.config.settings import Settings
from homeserver.outbound.single_sign_on.identity_provider import ProviderFailed
from homeserver.outbound.single_sign_on.providers import make_providers, provider_client

SUBJECT = "single sign-on"
FIX = "correct single_sign_on.providers; see docs/single-sign-on.md"


async def check_identity_providers(reactor: Any, settings: Settings) -> list[Finding]:
    """Ask each provider for what sign-ins need, one after the other."""
    configured = settings.single_sign_on.providers
    client = provider_client(reactor, settings.outbound_http)
    findings = []
    try:
        for name, provider in make_providers(reactor, configured, client).items():
            try:
                findings.append(ok(SUBJECT, f"{name}: {await provider.check()}"))
            except ProviderFailed as error:
                findings.append(problem(SUBJECT, f"{name}: {error.reason}", FIX))
    except ConfigError as error:
        findings.append(problem(SUBJECT, str(error), FIX))
    finally:
        await client.stop()
    return findings
