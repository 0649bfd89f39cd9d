"""The settings of push notifications."""

import pytest

from homeserver.config.fields import WrongSettings
from homeserver.config.sections.push import PushSettings


@pytest.mark.parametrize(
    "gateway", ["push.example.org", "https://push.example.org/", "ftp://a", "https://PUSH.org", ""]
)
def test_a_gateway_is_named_as_pushers_name_it(gateway: str) -> None:
    """Otherwise the setting would silently have no effect."""
    with pytest.raises(WrongSettings, match="is not a gateway"):
        PushSettings(several_devices=(gateway,))


def test_gateways_with_and_without_a_port() -> None:
    """Both are origins."""
    gateways = ("https://push.example.org", "http://localhost:5000")

    assert PushSettings(several_devices=gateways).several_devices == gateways
