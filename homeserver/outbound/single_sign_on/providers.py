"""The configured identity providers."""

from collections.abc import Iterable
from typing import Any

from homeserver.config.sections.single_sign_on import IdentityProviderSettings
from homeserver.config.settings import OutboundHttpSettings
from homeserver.outbound.http_client import OutboundClient
from homeserver.outbound.single_sign_on.cas import CasServer, late_cas_responses
from homeserver.outbound.single_sign_on.identity_provider import IdentityProvider
from homeserver.outbound.single_sign_on.openid_connect import OpenIdProvider, late_id_tokens
from homeserver.protocol.single_sign_on.claims import ClaimRules


def provider_client(reactor: Any, settings: OutboundHttpSettings) -> OutboundClient:
    """A client for addresses that the operator has configured, which may be private ones."""
    verify = settings.verify_certificates
    return OutboundClient(
        reactor, OutboundHttpSettings(verify_certificates=verify, allow_private_addresses=True)
    )


def make_providers(
    reactor: Any, settings: Iterable[IdentityProviderSettings], client: OutboundClient
) -> dict[str, IdentityProvider]:
    """The providers by id. Raises `ConfigError` if the file of a secret cannot be read."""
    id_tokens, cas_responses = late_id_tokens(reactor), late_cas_responses(reactor)
    found: dict[str, IdentityProvider] = {}
    for each in settings:
        if each.kind == "cas":
            found[each.id] = CasServer(each, client, cas_responses)
        else:
            wanted = claim_rules(each).claims
            found[each.id] = OpenIdProvider(each, client, reactor, id_tokens, wanted)
    return found


def claim_rules(settings: IdentityProviderSettings) -> ClaimRules:
    """The use that a provider's settings make of claims."""
    return ClaimRules(
        settings.subject_claim,
        settings.localpart_template,
        settings.display_name_template,
        settings.email,
        settings.required_attributes,
        has_verified_emails=settings.kind == "cas",
    )
