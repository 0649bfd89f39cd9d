"""A mail server in a process of its own, which outlives the servers that a test kills.

`python -m tests.crash.mail_process DIRECTORY` writes its port to `port`, and each mail that it gets
as a line of JSON to `mails`; a file named `down` or `mute` there sets that attribute of it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import LoopingCall

from tests.support.mail import MailServer

POLL_SECONDS = 0.01


class MailProcess:
    """The mail server of the process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server = MailServer()
        self._written = 0
        (directory / "mails").touch()
        (directory / "port.new").write_text(str(self._server.port))
        (directory / "port.new").rename(directory / "port")

    def poll(self) -> None:
        """Follow the files, and write what has come."""
        self._server.is_down = (self._directory / "down").exists()
        self._server.is_mute = (self._directory / "mute").exists()
        (self._directory / "connections").write_text(str(self._server.connections))
        with (self._directory / "mails").open("a") as lines:
            for mail in self._server.mails[self._written :]:
                mail_id = str(mail.message["Message-ID"])
                lines.write(json.dumps([mail_id, mail.subject, mail.body()]) + "\n")
                self._written += 1


if __name__ == "__main__":
    polling = LoopingCall(MailProcess(Path(sys.argv[1])).poll)
    polling.start(POLL_SECONDS)
    running: Any = reactor
    running.run()
