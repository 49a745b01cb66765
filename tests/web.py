"""A web server with a few files."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """What is served at http://localhost:{port}.

    Attributes:
        port: Of 127.0.0.1.
        files: By path.
        asked: Paths that were asked for, with the header Host.
        authorizations: The header Authorization of each request.
    """

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)


@contextlib.contextmanager
def serving() -> Iterator[Web]:
    served = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append((self.path, self.headers["Host"]))
            served.authorizations.append(self.headers["Authorization"])
            if self.path.startswith("/redirect"):
                self.send_response(302)
                self.send_header("Location", "/picture.jpg")
                self.end_headers()
                return
            data = served.files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.end_headers()  # no Content-Length: what is too large shows only as it comes
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield served
        server.shutdown()
