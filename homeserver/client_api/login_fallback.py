"""The fallback page of log-in, for clients that know none of the flows.

A client opens the page in a browser of its own, in which it has put an object `matrixLogin`, and
gets the answer of `POST /login` by `matrixLogin.onLogin(response)`. What the query of the page
holds, such as the device id, goes into the request.

Spec: https://spec.matrix.org/v1.19/client-server-api/#login-fallback
"""

from base64 import b64encode
from hashlib import sha256

from homeserver.web.routes import Answer, Auth, Route

SCRIPT = """
const form = document.getElementById("login");
const told = document.getElementById("told");
form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const query = new URLSearchParams(window.location.search);
    const body = {
        type: "m.login.password",
        identifier: { type: "m.id.user", user: form.elements.user.value },
        password: form.elements.password.value,
    };
    for (const name of ["device_id", "initial_device_display_name"]) {
        if (query.has(name)) body[name] = query.get(name);
    }
    if (query.has("refresh_token")) body.refresh_token = query.get("refresh_token") === "true";
    const base = window.location.pathname.replace(/\\/_matrix\\/static\\/.*$/, "");
    try {
        const answer = await fetch(base + "/_matrix/client/v3/login", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify(body),
        });
        const response = await answer.json();
        if (!answer.ok) {
            told.textContent = response.error;
        } else if (window.matrixLogin && window.matrixLogin.onLogin) {
            window.matrixLogin.onLogin(response);
        } else {
            told.textContent = "You are logged in, but no client waits for it.";
        }
    } catch {
        told.textContent = "The server cannot be reached.";
    }
});
"""
HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in</title>
<style>body { font: 1rem/1.5 sans-serif; max-width: 30rem; margin: 2rem auto; padding: 0 1rem }
input, button { font: inherit; margin: .5rem 0 }</style></head>
<body><h1>Log in</h1>"""
FORM = """<form id="login">
<p><label>User name<br><input name="user" autocomplete="username" required></label></p>
<p><label>Password<br>
<input name="password" type="password" autocomplete="current-password" required></label></p>
<p><button>Log in</button></p></form><p id="told" role="alert"></p>"""
NO_FORM = "<p>Nobody logs in to this server with a password.</p>"


class LoginFallbackApi:
    def __init__(self, *, with_password: bool) -> None:
        script = f"<script>{SCRIPT}</script>" if with_password else ""
        form = FORM if with_password else NO_FORM
        self._page = f"{HEAD}{form}{script}</body></html>\n".encode()

    def routes(self) -> list[Route]:
        return [Route("GET", "/_matrix/static/client/login/", self.show_login, Auth.NONE)]

    def show_login(self) -> Answer:
        """The page."""
        return Answer(200, self._page, _headers())


def _headers() -> dict[str, str]:
    # Only this script runs: whatever else got into the page could take the password.
    digest = b64encode(sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
    }
