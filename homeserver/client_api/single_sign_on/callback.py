"""The end of single sign-on: the browser comes back from a provider.

An identity without an account leads to a page where the user chooses a name. Then the client gets
its login token, after the user has confirmed that they know it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#handling-the-callback-from-the-authentication-server
"""

from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from homeserver.accounts.credentials.verification import PasswordAndTokenVerifier
from homeserver.accounts.interactive_auth.owner_flows import SSO
from homeserver.accounts.interactive_auth.user_interactive_auth import UserInteractiveAuth
from homeserver.accounts.single_sign_on.external_accounts import ExternalAccounts
from homeserver.accounts.single_sign_on.sign_in_attempts import Purpose, SignInAttempt
from homeserver.accounts.single_sign_on.single_sign_on import CALLBACK_PATH, SingleSignOn
from homeserver.client_api.single_sign_on.confirmation import FALLBACK_PATH
from homeserver.protocol.errors import (
    Exclusive,
    InvalidUsername,
    NotFound,
    UserInUse,
)
from homeserver.protocol.single_sign_on.client_urls import (
    client_of,
    is_trusted,
    with_login_token,
)
from homeserver.protocol.single_sign_on.localparts import map_localpart, suggest_localpart
from homeserver.web.browser.forms import read_form
from homeserver.web.html import Allowed, Pages
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route

MAX_FORM = 16_384  # bytes
NEW_ACCOUNT_PATH = "/_matrix/sso/new_account"
OpenBrowserSession = Callable[[str, Request], Awaitable[str]]


class SsoCallbackApi:
    """`open_browser_session(user_id, request)` begins a session of a browser.

    It returns the value of the `Set-Cookie` header. `trusted_clients` need no confirmation.
    """

    def __init__(
        self,
        single_sign_on: SingleSignOn,
        accounts: ExternalAccounts,
        uia: UserInteractiveAuth,
        credentials: PasswordAndTokenVerifier,
        pages: Pages,
        trusted_clients: tuple[str, ...],
        open_browser_session: OpenBrowserSession | None,
    ) -> None:
        self._sso = single_sign_on
        self._accounts = accounts
        self._uia = uia
        self._credentials = credentials
        self._pages = pages
        self._trusted_clients = trusted_clients
        self._open_browser_session = open_browser_session

    def routes(self) -> list[Route]:
        return [
            Route("GET", CALLBACK_PATH, self.finish_sign_in, Auth.NONE, limit="login", page=True),
            Route(
                "POST",
                NEW_ACCOUNT_PATH,
                self.create_account,
                Auth.NONE,
                limit="registration",
                max_body=MAX_FORM,
                page=True,
            ),
        ]

    async def finish_sign_in(self, query: dict[str, list[str]], request: Request) -> Response:
        """The browser comes back from the provider."""
        attempt = await self._sso.finish(query, request.header(b"cookie"))
        if attempt.purpose == Purpose.CONFIRMATION:
            return await self._confirm(attempt)
        assert attempt.identity is not None, "it is finished"
        provider = self._sso.provider(attempt.provider)
        user_id = await self._accounts.find(provider, attempt.identity)
        if user_id is None:
            return await self._name_page(attempt)
        return await self._respond(attempt, user_id, request)

    async def create_account(self, request: Request) -> Response:
        """Create the account of an identity, with the name that the user has chosen."""
        form = read_form(request)
        attempt = self._sso.attempts.find(form.get("state", ""), request.header(b"cookie"))
        if attempt.identity is None or attempt.purpose == Purpose.CONFIRMATION:
            raise NotFound("This sign-in was not completed. Begin again")
        provider = self._sso.provider(attempt.provider)
        localpart = form.get("localpart", "").strip().lower()
        try:
            user_id = await self._accounts.register(provider, attempt.identity, localpart)
        except (InvalidUsername, UserInUse, Exclusive) as error:
            return await self._name_page(attempt, name=localpart, problem=str(error))
        return await self._respond(attempt, user_id, request, follows_form=True)

    async def _respond(
        self, attempt: SignInAttempt, user_id: str, request: Request, *, follows_form: bool = False
    ) -> Response:
        """Send the browser to where the user wanted to go when the sign-in began.

        `follows_form`: the request was that of a form, whose policy a redirect would be subject to.
        """
        if attempt.purpose == Purpose.BROWSER:
            if self._open_browser_session is None:
                raise NotFound("This server has no pages that need this")
            cookie = await self._open_browser_session(user_id, request)
            target = self._sso.attempts.base_path + attempt.target
            return self._go(target, {"Set-Cookie": cookie}, by_page=follows_form)
        token = await self._credentials.issue_token(user_id)
        url = with_login_token(attempt.target, token)
        headers = {"Set-Cookie": self._sso.attempts.end(attempt.state)}
        if is_trusted(attempt.target, self._trusted_clients):
            return self._go(url, headers, by_page=follows_form)
        return self._pages.page(
            "sso/continue",
            headers=headers,
            url=url,
            client=client_of(attempt.target),
            is_web=attempt.target.lower().startswith(("https:", "http:")),
            user_id=user_id,
        )

    def _go(self, url: str, headers: dict[str, str], *, by_page: bool) -> Response:
        if by_page:
            refresh = {"Refresh": f"0; url={url}"}
            return self._pages.page("sso/forward", headers={**headers, **refresh}, url=url)
        no_traces = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return Response(302, b"", {"Location": url, **no_traces, **headers})

    async def _confirm(self, attempt: SignInAttempt) -> Response:
        """Complete the stage of user-interactive authentication."""
        assert attempt.identity is not None, "it is finished"
        session = await self._uia.get_session(attempt.target)
        user_id = await self._accounts.find_linked(attempt.provider, attempt.identity)
        if user_id is not None:
            await self._accounts.check_may_log_in(user_id)
        # Also another user's: the client then learns that it need not wait.
        await self._uia.record(attempt.target, SSO, user_id or "")
        headers = {"Set-Cookie": self._sso.attempts.end(attempt.state)}
        if user_id is None or user_id != session.user_id:
            path = self._sso.attempts.base_path + FALLBACK_PATH
            again = f"{path}?{urlencode({'session': attempt.target})}"
            wanted = session.user_id
            return self._pages.page(
                "sso/other_user", headers=headers, user_id=user_id, wanted=wanted, again=again
            )
        return self._pages.page(
            "authentication_done", script="authentication_done.js", headers=headers
        )

    async def _name_page(
        self, attempt: SignInAttempt, *, name: str | None = None, problem: str = ""
    ) -> Response:
        """The page on which the user chooses the name of their account."""
        identity = attempt.identity
        assert identity is not None, "it is finished"
        if name is None:
            name = suggest_localpart(identity.suggestion or "")
            if identity.is_mapped:
                name = map_localpart(identity.suggestion or "")
        return self._pages.page(
            "sso/new_account",
            allowed=Allowed(form="'self'"),
            headers={"Set-Cookie": self._sso.attempts.cookie(attempt)},
            action=self._sso.attempts.base_path + NEW_ACCOUNT_PATH,
            state=attempt.state,
            localpart=name,
            problem=problem,
            provider=self._sso.provider(attempt.provider).name,
            display_name=identity.display_name,
            email=await self._accounts.free_email(identity),
            documents=self._accounts.policies,
        )
