"""The barest service with the API of S3, whose objects are files: it costs less than what uses it.

Its command is `python -m benchmarks.media.bare_bucket PORT FOLDER`.

It knows no bucket and no access key: the path of a URL is the key. It has what the server requests
to store and read media: objects, ranges of them, uploads in parts, and a list, which is empty.
"""

import hashlib
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

AT_ONCE = 1_048_576  # bytes
PART_SIZE = 8_388_608  # bytes; that of the server
RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class BareBucket(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = AT_ONCE
    folder: ClassVar[Path]

    def do_PUT(self) -> None:
        """Store an object, or a part, which is written to its place in the object."""
        query, path = self._request()
        start = (int(query["partNumber"][0]) - 1) * PART_SIZE if "partNumber" in query else 0
        left = int(self.headers["Content-Length"])
        path.touch()
        with path.open("r+b") as file:
            file.seek(start)
            while left:
                part = self.rfile.read(min(left, AT_ONCE))
                file.write(part)
                left -= len(part)
        self._respond(200, b"", {"ETag": '"tag"'})

    def do_GET(self) -> None:
        """A range of an object, or an empty list."""
        query, path = self._request()
        if "list-type" in query:
            self._respond(200, b"<ListBucketResult></ListBucketResult>")
            return
        found = RANGE.match(self.headers["Range"])
        assert found is not None, "the server reads ranges"
        start, last = int(found[1]), int(found[2])
        with path.open("rb") as file:
            file.seek(start)
            self._respond(206, file.read(last + 1 - start))

    def do_POST(self) -> None:
        """Begin or complete an upload in parts."""
        query, _ = self._request()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "uploads" in query:
            kind, content = "InitiateMultipartUploadResult", "<UploadId>upload</UploadId>"
        else:
            kind, content = "CompleteMultipartUploadResult", ""
        self._respond(200, f"<{kind}>{content}</{kind}>".encode())

    def handle_expect_100(self) -> bool:
        """Have the client send its body now, not after it has waited for a second."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def log_message(self, *arguments: object) -> None:
        """Write no log."""

    def _request(self) -> tuple[dict[str, list[str]], Path]:
        """The query, and the file of the object."""
        parts = urlsplit(self.path)
        name = hashlib.sha256(parts.path.encode()).hexdigest()
        return parse_qs(parts.query, keep_blank_values=True), self.folder / name

    def _respond(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def main() -> None:
    """Serve until killed."""
    BareBucket.folder = Path(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), BareBucket).serve_forever()


if __name__ == "__main__":
    main()
