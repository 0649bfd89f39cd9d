"""Settings of identity providers: mistakes that an operator makes, and secrets in files."""

from pathlib import Path

import pytest

from homeserver.config.errors import ConfigError
from homeserver.config.loading import load_settings, parse_settings

HEAD = "public_baseurl: https://matrix.example.org\nsingle_sign_on:\n  providers:\n    - "
OIDC = "{kind: oidc, id: x, name: X, issuer: 'https://id.example.org', client_id: m%s}"
CAS = "{kind: cas, id: x, name: X, server_url: 'https://cas.example.org'%s}"


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("{kind: saml, id: x, name: X}", "one of cas, oidc"),
        ("{kind: oidc, id: x, name: X, client_id: m}", "issuer is missing"),
        ("{kind: oidc, id: x, name: X, issuer: 'https://a'}", "client_id is missing"),
        ("{kind: cas, id: x, name: X}", "server_url is missing"),
        ("{kind: cas, id: a/b, name: X, server_url: 'https://a'}", "id"),
        (OIDC % ", scopes: [email]", "`openid` is missing"),
        (OIDC % ", client_secret: a, client_secret_file: b", "not both"),
        (OIDC % ", issuer: 'ftp://a'", "issuer"),
        (OIDC % ", icon: 'https://a/b'", "icon"),
        (OIDC % ", allow_existing_users: true", "allow_existing_users needs a localpart"),
        (f"{CAS % ''}\n    - {CAS % ''}", "two have the same id"),
        (f"{CAS % ''}\n  trusted_clients: [example.org]", "is not an address"),
    ],
)
def test_a_mistake_is_reported(text: str, reported: str) -> None:
    """The server does not start with settings that cannot work."""
    with pytest.raises(ConfigError) as caught:
        parse_settings(HEAD + text)

    assert reported in str(caught.value)


def test_providers_need_an_address_to_come_back_to() -> None:
    """The provider sends browsers to `public_baseurl`."""
    with pytest.raises(ConfigError) as caught:
        parse_settings((HEAD + CAS % "").partition("\n")[2])

    assert "identity providers need public_baseurl" in str(caught.value)


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    """A path is relative to the configuration; a missing file is an error in words."""
    config = tmp_path / "homeserver.yaml"
    config.write_text(HEAD + OIDC % ", client_secret_file: secret")
    [provider] = load_settings(config).single_sign_on.providers

    with pytest.raises(ConfigError) as caught:
        provider.secret()
    assert "cannot read" in str(caught.value)

    (tmp_path / "secret").write_text("hush\n")
    assert provider.secret() == "hush"
    assert "hush" not in repr(provider)
