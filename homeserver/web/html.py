"""HTML pages for users: one layout for all of them, and one content security policy.

Each page extends `templates/layout.html`. It loads nothing from other places; its style and its
script are inline and allowed by their hashes, so that injected content has no effect.

The policy is described in https://www.w3.org/TR/CSP3/.
"""

from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

from homeserver.protocol.errors import MatrixError
from homeserver.web.routes import Response

if TYPE_CHECKING:
    from jinja2 import Environment

SCRIPTS = ("login.js", "authentication_done.js")
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}


class Allowed(msgspec.Struct, frozen=True):
    """Permissions of a page: sources, in the syntax of a content security policy.

    `style` replaces the page's own style as the allowed one.
    """

    connect: str = ""
    form: str = "'none'"
    frame: str = ""
    script: str = ""
    style: str = ""


NOTHING = Allowed()


class Pages:
    """The HTML pages of one server."""

    def __init__(self, server_name: str) -> None:
        self._server_name = server_name
        self._style = _text("style.css")
        self._scripts = {name: _text(name) for name in SCRIPTS}

    def page(
        self,
        name: str,
        *,
        status: int = 200,
        script: str = "",
        allowed: Allowed = NOTHING,
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> Response:
        """Render the template `name`, with the script of the file `script`, if it is given."""
        from markupsafe import Markup

        code = self._scripts[script] if script else ""
        marked = Markup(code)  # noqa: S704 - a file of this package
        template = _environment().get_template(f"{name}.html")
        text = template.render(
            server_name=self._server_name, script=marked, status=status, **values
        )
        policy = {"Content-Security-Policy": _policy(allowed, self._style, code)}
        return Response(status, text.encode(), {**_HEADERS, **policy, **(headers or {})})

    def error_page(self, error: MatrixError) -> Response:
        """An error page for a user's browser."""
        return self.page(
            "error",
            status=error.status,
            headers=error.headers(),
            errcode=error.errcode,
            message=str(error),
        )


@lru_cache(maxsize=1)
def _environment() -> "Environment":
    """The templates, which are compiled when they are first used, with their common values."""
    # Most servers show no page for weeks.
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("homeserver.web", "templates"),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    # The server's own text, unlike a user's, is not escaped.
    environment.globals["style"] = Markup(_text("style.css"))  # noqa: S704
    environment.globals["icon"] = Markup(_text("icon.svg").strip())  # noqa: S704
    environment.globals["is_public"] = False
    return environment


def accepts_html(accept: str | None) -> bool:
    """Whether an `Accept` header is that of a browser which shows the response to a user."""
    return accept is not None and "text/html" in accept.lower()


def _policy(allowed: Allowed, style: str, script: str) -> str:
    own_script = f"'sha256-{_digest(script)}'" if script else ""
    sources = {
        "default-src": "'none'",
        "style-src": allowed.style or f"'sha256-{_digest(style)}'",
        "img-src": "data:",
        "script-src": f"{own_script} {allowed.script}".strip(),
        "connect-src": allowed.connect,
        "frame-src": allowed.frame,
        "form-action": allowed.form,
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {source}" for name, source in sources.items() if source)


def _digest(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()


@lru_cache(maxsize=16)
def _text(name: str) -> str:
    return files("homeserver.web").joinpath("templates", name).read_text("utf-8")
