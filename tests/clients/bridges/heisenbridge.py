"""heisenbridge, a bridge between Matrix and IRC: https://github.com/hifi/heisenbridge

It is installed in a separate virtual environment, `.venv-bridge`, by `make bridge`. The people who
use it give it commands in rooms that it makes for them; on IRC each of them has a connection.
"""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.clients.bridges.irc import accepts
from tests.support.program import CHECKOUT, Program
from tests.support.proxy import Mode, Proxy
from tests.support.sites import Site

PYTHON = CHECKOUT / ".venv-bridge" / "bin" / "python"
IS_INSTALLED = PYTHON.with_name("..").resolve().joinpath(".installed").exists()
BOT = "heisenbridge"
START_SECONDS = 60.0


class Heisenbridge(Program):
    """A bridge of one server, which sends it transactions by HTTP, or on a WebSocket.

    The way from the server to the bridge can be closed; that from the bridge to the server cannot.
    """

    def __init__(self, directory: Path, site: Site, authority: Path, *, websocket: bool) -> None:
        super().__init__(directory)
        self._site = site
        self._authority = authority
        self._websocket = websocket
        self._way = Proxy(self.port)
        self.registration: dict[str, Any] = {
            "id": BOT,
            "url": None if websocket else f"http://127.0.0.1:{self._way.port}",
            "as_token": secrets.token_hex(32),
            "hs_token": secrets.token_hex(32),
            "rate_limited": False,
            "sender_localpart": BOT,
            "namespaces": {"users": [{"regex": "@irc_.*", "exclusive": True}]},
        }
        self._file = directory / "heisenbridge.yaml"
        self._file.write_text(json.dumps(self.registration))  # JSON is YAML
        self._read = 0

    @property
    def bot(self) -> str:
        """The user id of the bridge itself."""
        return f"@{BOT}:{self._site.name}"

    @property
    def command(self) -> list[str]:
        """With an owner, the first local user who talks to it would get it otherwise."""
        url = self._site.program.url
        if self._websocket:
            url = url.replace("http", "ws", 1)
        listen = ["--listen-address", "127.0.0.1", "--listen-port", str(self.port)]
        return [str(PYTHON), "-m", "heisenbridge", "-v", "--config", str(self._file), *listen, url]

    @property
    def environment(self) -> Mapping[str, str]:
        """It finds its own packages only, and trusts the server's certificate."""
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return {**inherited, "SSL_CERT_FILE": str(self._authority)}

    def start(self, timeout: float = START_SECONDS) -> None:
        """Start it, and wait until it has read its rooms from the server."""
        output = self.directory / "output.log"
        self._read = output.stat().st_size if output.exists() else 0
        super().start(timeout)

    def is_responding(self) -> bool:
        """Whether it handles events."""
        with (self.directory / "output.log").open("rb") as output:
            output.seek(self._read)
            return b"bridge is now running!" in output.read() and accepts(self.port)

    def close_way(self) -> None:
        """The server cannot reach it from now on."""
        self._way.set_mode(Mode.REFUSE)

    def open_way(self) -> None:
        """The server can reach it again."""
        self._way.set_mode(Mode.PASS)

    def close(self) -> None:
        """End it, and remove all that it stored."""
        super().close()
        self._way.close()
