"""A web site with one file to download, which breaks off, refuses and hangs when told to."""

import contextlib
import http.server
import re
import threading
from collections.abc import Iterator

from testing.web_server import answering


class Site(http.server.ThreadingHTTPServer):
    """Serves one file under every path.

    Attributes:
        content: The file.
        requests: The Range header of each request.
        paths: The path of each request.
        cuts: Bytes after which the next answers break off; None is a whole answer, a negative number a status.
        ranges: Whether Range is obeyed.
        hangs: Whether answers that break off keep the connection open, sending nothing, until the site is closed.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.requests: list[str | None] = []
        self.paths: list[str] = []
        self.cuts: list[int | None] = []
        self.ranges = True
        self.hangs = False
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        """Address of its folder."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        site, wanted = self.server, self.headers["Range"]
        site.requests.append(wanted)
        site.paths.append(self.path)
        cut = site.cuts.pop(0) if site.cuts else None
        if cut is not None and cut < 0:
            self.send_error(-cut)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and site.ranges else 0  # type: ignore[index]
        if start >= len(site.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(site.content) - start))
        self.end_headers()
        self.wfile.write(site.content[start : None if cut is None else start + cut])
        if cut is not None and site.hangs:
            self.wfile.flush()
            site.closing.wait()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(content: bytes) -> Iterator[Site]:
    """Runs a site on a free port of 127.0.0.1, in threads."""
    with Site(content) as site, answering(site):
        yield site
        site.closing.set()
