"""CAS servers: tickets, and the XML about them."""

from twisted.web.server import Request

from tests.single_sign_on.support import SingleSignOnTestCase, error_of


class CasTests(SingleSignOnTestCase):
    kinds = ("cas",)

    async def test_a_ticket_is_validated_for_the_service_it_was_issued_for(self) -> None:
        """The service is the callback with the state of this sign-in."""
        begun = await self.browser.get(self.redirect_url("cas"))
        back = await self.browser.get(begun.location)
        await self.browser.get(back.location)

        [validated] = self.cas.validated
        self.assertEqual(validated["ticket"], "ST-1")
        self.assertEqual(f"{validated['service']}&ticket=ST-1", back.location)

    async def test_a_server_of_cas_2_is_asked_at_its_path(self) -> None:
        """It does not have the path of CAS 3."""
        self.cas.paths = ["/cas/serviceValidate"]

        page = await self.sign_in("cas")

        self.assertIn("@cas_user=21:example.org", page.text)

    async def test_a_refused_ticket_is_an_error_page(self) -> None:
        """It was used before, or is for another service."""
        self.cas.failure = "INVALID_TICKET"

        page = await self.sign_in("cas")

        self.assertEqual((page.status, error_of(page)), (403, "M_FORBIDDEN"))

    async def test_a_callback_without_a_ticket_is_an_error_page(self) -> None:
        """Somebody has typed the address, or the ticket is huge."""
        for ticket in ("", "&ticket=", "&ticket=" + "x" * 2000):
            begun = await self.browser.get(self.redirect_url("cas"))
            back = await self.browser.get(begun.location)
            page = await self.browser.get(back.location.partition("&ticket")[0] + ticket)
            self.assertEqual((page.status, error_of(page)), (403, "M_FORBIDDEN"), ticket)
        self.assertEqual(self.cas.validated, [])

    async def test_what_is_not_valid_is_an_error_page(self) -> None:
        """Nothing is loaded from files or from the network, and no entity is expanded."""
        head = '<cas:serviceResponse xmlns:cas="http://www.yale.edu/tp/cas">'
        success = "<cas:authenticationSuccess><cas:user>%s</cas:user></cas:authenticationSuccess>"
        tail = "</cas:serviceResponse>"
        file = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
        laughs = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY e "&a;&a;&a;">]>'
        for text in (
            "",
            "no XML",
            "<x/>",
            head + tail,
            head + success % "  " + tail,
            head + success.replace("cas:user", "cas:nobody") % "alice" + tail,
            file + head + success % "&e;" + tail,
            laughs + head + success % "&e;" + tail,
            laughs + head + success % "alice" + tail,
            head + success % "alice<!-- -->.evil" + tail,
            head + success % "alice<?x?>.evil" + tail,
            head + success % "alice<b/>.evil" + tail,
            head.replace("yale", "other") + success % "alice" + tail,
        ):
            self.cas.validate = lambda _, text=text: text.encode()  # type: ignore[misc]
            page = await self.sign_in("cas")
            self.assertEqual((page.status, error_of(page)), (502, "M_UNKNOWN"), text)

    async def test_other_responses_are_an_error_page(self) -> None:
        """The server is broken, or too talkative."""

        def broken(request: Request) -> bytes:
            request.setResponseCode(500)
            return b""

        for answer in (broken, lambda _: b"x" * 300_000):
            self.cas.validate = answer  # type: ignore[method-assign]
            page = await self.sign_in("cas")
            self.assertEqual((page.status, error_of(page)), (502, "M_UNKNOWN"))


class SolicitedTicketTests(SingleSignOnTestCase):
    kinds = ("cas",)

    async def test_tickets_without_a_beginning_are_not_accepted(self) -> None:
        """Nobody is signed in by a link that somebody else has made."""
        page = await self.browser.get(f"{self.url}/_matrix/sso/callback?state=x&ticket=y")

        self.assertEqual((page.status, error_of(page)), (404, "M_NOT_FOUND"))
