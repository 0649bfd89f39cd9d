"""Folders that tests write into, outside of the checkout, and removed after the test."""

import shutil
import tempfile
from pathlib import Path
from unittest import TestCase


def temporary_folder(test: TestCase) -> Path:
    """An empty folder for one test; its path is short enough for Unix sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="homeserver-"))
    test.addCleanup(shutil.rmtree, folder)
    return folder
