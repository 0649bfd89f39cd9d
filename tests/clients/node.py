"""Programs under Node.js, in `js/`; `npm ci` in that folder fetches the libraries that they use."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "js"
NEEDS_NODE = [
    pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules").exists(),
        reason="matrix-js-sdk is not installed: run `npm ci` in tests/clients/js",
    ),
]


def node(
    program: str, *arguments: str, authority: Path | None = None, timeout: float = 100
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; it trusts certificates of this authority, too."""
    trusted = {} if authority is None else {"NODE_EXTRA_CA_CERTS": str(authority)}
    return subprocess.run(
        ["node", program, *arguments],
        cwd=FOLDER,
        env={**os.environ, **trusted},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
