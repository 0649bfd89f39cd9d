"""The JSON of a session, for the responses to log-in and registration."""

from typing import Any

from homeserver.accounts.sessions.login_sessions import LoginSession
from homeserver.accounts.sessions.token_issuer import TokenPair


def session_body(session: LoginSession) -> dict[str, Any]:
    """The user, device and tokens of a session."""
    return {
        "user_id": session.user_id,
        "device_id": session.device_id,
        **token_body(session.tokens),
    }


def token_body(tokens: TokenPair) -> dict[str, Any]:
    """A pair of tokens; without `expires_in_ms` if they do not expire."""
    body: dict[str, Any] = {"access_token": tokens.access_token}
    if tokens.refresh_token is not None:
        body["refresh_token"] = tokens.refresh_token
    if tokens.expires_in_ms is not None:
        body["expires_in_ms"] = tokens.expires_in_ms
    return body
