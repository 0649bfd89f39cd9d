"""Command lines for the operator to copy and run.

Every command line that the server prints is built here. It names the program as it was called, such
as `.venv/bin/homeserver`, and the configuration unless the program finds it by itself, and it is
quoted for the shell. The reader replaces words in capitals, such as `NAME`.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

DEFAULT_CONFIG = Path("homeserver.yaml")
"""The default configuration file, in the working directory."""


def homeserver_command(*words: str, config: Path | None = None) -> str:
    """A command line of this program, with the same configuration as this process.

    `config` is the file of the configuration, `None` if there is none.
    """
    line = [*_this_program(), *words]
    if config is not None and config.absolute() != DEFAULT_CONFIG.absolute():
        line += ["--config", os.fspath(config)]
    return shell_command(*line)


def pip_command(*words: str) -> str:
    """A command line of pip, for the Python that this process runs in."""
    return shell_command(sys.executable, "-m", "pip", *words)


def shell_command(*words: str | Path) -> str:
    """A command line for a POSIX shell."""
    return shlex.join(os.fspath(word) for word in words)


def _this_program() -> list[str]:
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return [sys.executable, "-m", "homeserver"]
    found = shutil.which(called.name)
    if found is not None and Path(found).absolute() == called.absolute():
        return [called.name]
    return [os.fspath(sys.argv[0])]
