"""The pages on which users sign in and manage their accounts; loaded where they are enabled."""

from typing import Any

from homeserver.accounts.browser_sessions.browser_sessions import BrowserSessions
from homeserver.client_api.account_pages.signing_out import SigningOutApi
from homeserver.config.settings import Settings
from homeserver.storage.database.database import Database


class AccountPages:
    """The sessions of browsers, and the pages that need them."""

    def __init__(self, reactor: Any, settings: Settings, db: Database) -> None:
        assert settings.public_baseurl is not None, "as the settings have checked"
        self.sessions = BrowserSessions(db, reactor, settings.public_baseurl)

    def apis(self) -> list[Any]:
        """The pages."""
        return [SigningOutApi(self.sessions)]
