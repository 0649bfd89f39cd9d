"""reCAPTCHA: verification of solutions by the service that makes the puzzles.

Spec: https://spec.matrix.org/v1.19/client-server-api/#google-recaptcha
https://developers.google.com/recaptcha/docs/verify
"""

import msgspec
from twisted.logger import Logger

from homeserver.config.sections.accounts import RecaptchaSettings
from homeserver.outbound.http_client import OutboundClient, OutboundError
from homeserver.protocol.errors import Unavailable

log = Logger()


class Verification(msgspec.Struct):
    """The service's response for a solution."""

    success: bool


class Recaptcha:
    """A verifier of solutions."""

    def __init__(self, outbound: OutboundClient, settings: RecaptchaSettings) -> None:
        self._outbound = outbound
        self._settings = settings

    async def is_solved(self, response: str) -> bool:
        """Whether this is the solution of a puzzle. Raises `Unavailable`."""
        form = {"secret": self._settings.private_key or "", "response": response}
        try:
            verified = await self._outbound.post_form(self._settings.verify_url, form)
            return msgspec.json.decode(verified.body, type=Verification).success
        except (OutboundError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warn("a captcha could not be checked: {error}", error=error)
            raise Unavailable("The captcha cannot be checked just now") from None
