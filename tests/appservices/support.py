"""Servers with application services, which are real HTTP servers in the test's process."""

from collections.abc import Mapping
from typing import Any

import yaml

from tests.support.actors import Actor
from tests.support.server import ServerTestCase

AS_TOKEN = "the token of the application service"
HS_TOKEN = "the token of the homeserver"


def registration(appservice_id: str = "irc", **changes: Any) -> dict[str, Any]:
    """The registration of a bridge to IRC, whose users and aliases begin with `_irc_`."""
    return {
        "id": appservice_id,
        "url": None,
        "as_token": f"{AS_TOKEN} {appservice_id}",
        "hs_token": f"{HS_TOKEN} {appservice_id}",
        "sender_localpart": f"_{appservice_id}_bot",
        "namespaces": {
            "users": [{"exclusive": True, "regex": f"@_{appservice_id}_.*"}],
            "aliases": [{"exclusive": True, "regex": f"#_{appservice_id}_.*"}],
        },
        **changes,
    }


class AppserviceUser(Actor):
    """A user as whom an application service acts; with a `device_id` as one of its devices."""

    async def request(
        self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None
    ) -> Any:
        identity = {"user_id": self.user_id}
        if self.device_id:
            identity["device_id"] = self.device_id
        return await super().request(method, path, body, {**identity, **(query or {})})


class AppserviceTestCase(ServerTestCase):
    """A server with the application services of `registrations`."""

    registrations: tuple[dict[str, Any], ...] = (registration(),)

    async def start_server(self) -> None:
        folder = self._directory / "appservices.d"
        folder.mkdir(exist_ok=True)
        for each in self.registrations:
            (folder / f"{each['id']}.yaml").write_text(yaml.safe_dump(each))
        self.settings = {**self.settings, "appservices_folder": str(folder)}
        await super().start_server()

    def bot(self, appservice_id: str = "irc") -> AppserviceUser:
        """The application service's own user, without a device."""
        return self.as_user(f"_{appservice_id}_bot", appservice_id)

    def as_user(self, localpart: str, appservice_id: str = "irc") -> AppserviceUser:
        """An application service that acts as one of its users."""
        user_id = f"@{localpart}:example.org"
        return AppserviceUser(self._http, self.url, user_id, "", f"{AS_TOKEN} {appservice_id}")

    async def ghost(self, localpart: str, appservice_id: str = "irc") -> AppserviceUser:
        """A new user of an application service."""
        ghost = self.as_user(localpart, appservice_id)
        await ghost.post(
            "/register",
            {
                "type": "m.login.application_service",
                "username": localpart,
                "inhibit_login": True,
            },
        )
        return ghost
