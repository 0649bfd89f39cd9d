"""The modules that a server has loaded when it has started: each takes memory from then on."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import ServerProcess

pytestmark = pytest.mark.interop

# Packages and modules of features that most servers, or most processes, never use; some megabytes
# each. `homeserver/concurrency/late_imports.py` is for those that a running server may need.
FOR_ONE_FEATURE = {
    "PIL",
    "acme",
    "autobahn",
    "botocore",
    "homeserver.certificates",
    "homeserver.client_api.account_pages",
    "homeserver.accounts.single_sign_on",
    "homeserver.client_api.single_sign_on",
    "homeserver.outbound.single_sign_on",
    "homeserver.protocol.single_sign_on",
    "http.server",
    "jinja2",
    "joserfc",
    "josepy",
    "lxml",
    "moto",
    "phonenumbers",
    "prometheus_client",
    "requests",
    "smtplib",
    "twisted.application",
    "twisted.conch",
    "twisted.mail",
    "twisted.trial",
    "twisted.web.server",
    "twisted.words",
}
IMPORTED = re.compile(r"^import time: +\d+ \| +\d+ \| +(\S+)$", re.MULTILINE)


class TracedServer(ServerProcess):
    """A server that prints what it imports."""

    @property
    def command(self) -> list[str]:
        python, *arguments = super().command
        return [python, "-X", "importtime", *arguments]

    def loaded(self) -> set[str]:
        """The names of the modules, and of the packages that they are in."""
        names = IMPORTED.findall((self.directory / "output.log").read_text())
        return {name[: end.start()] for name in names for end in re.finditer(r"\.|$", name)}


@pytest.fixture
def server() -> Iterator[TracedServer]:
    directory = Path(tempfile.mkdtemp(prefix="homeserver-imports-"))
    directory.chmod(0o755)
    with TracedServer(directory) as server:
        server.start()
        yield server


def test_a_server_loads_no_module_for_a_feature_that_nobody_uses(server: TracedServer) -> None:
    """An idle server fits on a small machine."""
    loaded = server.loaded()

    assert {"homeserver.app", "twisted.web.http"} <= loaded
    assert loaded & FOR_ONE_FEATURE == set()
