"""URL previews of a server whose media are in a bucket."""

from tests.media.media_client import THUMBNAIL
from tests.media.pictures import encode, halves
from tests.media.s3.fake_s3 import fails_with
from tests.media.s3.s3_test_case import OnS3
from tests.media.web_pages import Page, PreviewTestCase, og, page

PICTURE = encode(halves(1_000, 500))


class PreviewOnS3Tests(OnS3, PreviewTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.web.pages["/"] = page(og(title="T", image="/picture"))
        self.web.pages["/picture"] = Page(PICTURE, "image/png")

    async def test_a_picture_and_its_thumbnail(self) -> None:
        """They are files like any other."""
        preview = await self.preview("/")
        picture = await self.image(preview)
        file = preview["og:image"].removeprefix("mxc://")
        query = {"by": self.alice, "width": 64, "height": 64}
        thumbnail = await self.send("GET", f"{THUMBNAIL}/{file}", **query)

        self.assertEqual((picture.status, picture.body), (200, PICTURE))
        self.assertEqual(thumbnail.status, 200)
        self.assertEqual(len(self.stored_files()), 2)

    async def test_a_bucket_that_fails(self) -> None:
        """The preview lacks its picture for a while, and the page is not fetched each time."""
        self.s3.fault = fails_with(500)

        for _ in range(3):
            self.assertEqual(await self.preview("/"), {"og:title": "T"})

        self.assertEqual(self.web.asked, ["/", "/picture"])
