"""Settings of ACME: what could not lead to a certificate is reported at the start."""

import re
from textwrap import dedent
from typing import Any

import pytest
import yaml

from homeserver.config.errors import ConfigError
from homeserver.config.loading import parse_settings
from homeserver.config.sections.acme import problem_of_name
from homeserver.config.settings import Settings
from tests.support.program import CHECKOUT

HTTPS: dict[str, Any] = {"port": 443, "resources": ["client"], "tls": {"acme": True}}
HTTP: dict[str, Any] = {"port": 80, "resources": ["acme"]}
TERMS = {"agree_to_terms": True}


def load(acme: object = TERMS, listeners: object = (HTTPS, HTTP), **others: object) -> Settings:
    """The settings of a server named example.org."""
    chosen = {"server_name": "example.org", "acme": acme, "listeners": listeners, **others}
    text = yaml.safe_dump(
        {key: _plain(value) for key, value in chosen.items() if value is not None}
    )
    return parse_settings(text)[0]


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def test_agreement_and_two_listeners_are_enough() -> None:
    """The name of the server is that of its certificate."""
    settings = load()

    assert settings.acme.enabled
    assert settings.acme_names == ("example.org",)


def test_host_of_clients_is_a_name_too() -> None:
    """Clients and other servers reach it by different names."""
    settings = load(public_baseurl="https://Matrix.example.org:8443/")

    assert settings.acme_names == ("example.org", "matrix.example.org")


def test_names_in_the_file_are_the_only_ones_and_in_lower_case() -> None:
    """Another machine may serve the name of the server; authorities compare lower case."""
    settings = load({**TERMS, "names": ["Matrix.Example.org", "matrix.example.org"]})

    assert settings.acme_names == ("matrix.example.org",)


def test_server_name_with_a_port_is_not_taken_for_a_host() -> None:
    """Its host need not lead to this server at port 80."""
    settings = load(server_name="example.org:8448", public_baseurl="https://m.example.org")

    assert settings.acme_names == ("m.example.org",)


@pytest.mark.parametrize(
    ("chosen", "reported"),
    [
        ({"acme": None}, "acme.agree_to_terms: set it to true"),
        ({"acme": {"email": "a@example.org"}}, "acme.agree_to_terms: set it to true"),
        ({"listeners": (HTTPS,)}, "needs a listener for port 80"),
        ({"listeners": (HTTP,)}, "acme: no listener uses the certificate"),
        ({"listeners": None}, "acme: no listener uses the certificate"),
        ({"acme": None, "listeners": (HTTP,)}, "acme: no listener uses the certificate"),
        ({"listeners": (HTTPS, {**HTTP, **HTTPS})}, "needs a listener for port 80"),
        ({"listeners": (HTTPS, {**HTTPS, **HTTP})}, "listener without tls"),
        ({"server_name": "10.0.0.1"}, "neither server_name nor public_baseurl has"),
        ({"server_name": "[2001:db8::1]"}, "neither server_name nor public_baseurl has"),
        ({"acme": {**TERMS, "directory": "http://ca.example.org"}}, "not an https:// address"),
        ({"acme": {**TERMS, "email": "admin"}}, "email: not an e-mail address"),
        ({"acme": {**TERMS, "names": ["*.example.org"]}}, "is a wildcard"),
        ({"acme": {**TERMS, "names": ["münchen.example"]}}, "as 'xn--mnchen-3ya.example'"),
        ({"acme": {**TERMS, "names": ["192.0.2.1"]}}, "'192.0.2.1' is not a host name"),
        ({"acme": {**TERMS, "names": [f"{n}.org" for n in range(101)]}}, "at most 100"),
        ({"acme": {**TERMS, "external_account": {"key_id": "k"}}}, "hmac_key: missing"),
        ({"listeners": ({**HTTPS, "tls": {}}, HTTP)}, "tls needs a certificate and a private_key"),
        (
            {"listeners": ({**HTTPS, "tls": {"acme": True, "certificate": "c"}}, HTTP)},
            "either acme: true or files",
        ),
    ],
)
def test_what_cannot_work_is_refused(chosen: dict[str, Any], reported: str) -> None:
    """The operator reads what is missing before an authority counts a failure."""
    with pytest.raises(ConfigError, match=reported.replace("*", r"\*")):
        load(**chosen)


@pytest.mark.parametrize(
    "name",
    ["", ".", "a..b", "-a.org", "a-.org", "a_b.org", "a b", "a" * 64, "1.2.3", "2001:db8::1"],
)
def test_names_that_no_certificate_has_are_found(name: str) -> None:
    """Whatever an operator writes, no order is placed for it."""
    assert problem_of_name(name) == "is not a host name"


@pytest.mark.parametrize("name", ["example.org", "EXAMPLE.org", "xn--mnchen-3ya.de", "a", "1a.org"])
def test_host_names_are_accepted(name: str) -> None:
    """Those of an organisation's own network, too."""
    assert problem_of_name(name) is None


@pytest.mark.parametrize(
    ("page", "begin"),
    [
        ("operations.md", "public_baseurl: https://example.org\n"),
        ("containers.md", "server_name: "),
    ],
)
def test_configurations_in_the_manual_work(page: str, begin: str) -> None:
    """They are copied."""
    text = (CHECKOUT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"(?m)(?:^ {4}\S.*\n(?:^ {4}.*\n)*)", text)
    [block] = [each for each in map(dedent, blocks) if begin in each and "tls: {acme" in each]

    settings, _ = parse_settings(("" if "server_name" in block else "server_name: a.b\n") + block)

    assert "example.org" in settings.acme_names
