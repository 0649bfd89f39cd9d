"""A session as clients are told of it, after log-in and registration alike."""

from typing import Any

from homeserver.accounts.sessions.login_sessions import LoginSession, TokenPair


def session_body(session: LoginSession) -> dict[str, Any]:
    """Who is logged in, where, and with which tokens."""
    return {
        "user_id": session.user_id,
        "device_id": session.device_id,
        **token_body(session.tokens),
    }


def token_body(tokens: TokenPair) -> dict[str, Any]:
    """A pair of tokens; what does not expire says nothing of it."""
    body: dict[str, Any] = {"access_token": tokens.access_token}
    if tokens.refresh_token is not None:
        body["refresh_token"] = tokens.refresh_token
    if tokens.expires_in_ms is not None:
        body["expires_in_ms"] = tokens.expires_in_ms
    return body
