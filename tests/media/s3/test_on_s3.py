"""The tests of the content repository, with media in a bucket.

The behaviour is the same wherever files are stored. What depends on the storage is tested by itself
in `test_content_storage.py`; so most of these classes run with the slow suites.
"""

import pytest

from tests.media import (
    test_arriving_files,
    test_retention,
    test_thumbnails,
    test_upload_bounds,
    test_upload_download,
)
from tests.media.s3.s3_test_case import OnS3


class UploadOnS3Tests(OnS3, test_upload_download.UploadTests):
    pass


class RangeOnS3Tests(OnS3, test_upload_download.RangeTests):
    pass


@pytest.mark.interop
class AsynchronousUploadOnS3Tests(OnS3, test_upload_download.AsynchronousUploadTests):
    pass


@pytest.mark.interop
class LimitOnS3Tests(OnS3, test_upload_download.LimitTests):
    pass


@pytest.mark.interop
class StoreOnS3Tests(OnS3, test_upload_download.StoreTests):
    pass


@pytest.mark.interop
class ConcurrentUploadOnS3Tests(OnS3, test_upload_bounds.ConcurrentUploadTests):
    pass


@pytest.mark.interop
class ArrivingFileOnS3Tests(OnS3, test_arriving_files.ArrivingFileTests):
    pass


@pytest.mark.interop
class RetentionOnS3Tests(OnS3, test_retention.RetentionTests):
    pass


@pytest.mark.interop
class QuarantineOnS3Tests(OnS3, test_retention.QuarantineTests):
    pass


@pytest.mark.interop
class ThumbnailOnS3Tests(OnS3, test_thumbnails.ThumbnailTests):
    pass
