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
        authorizations: The header Authorization of each GET request.
        accepted: The header Authorization without which GET requests are answered with 401; None: any will do.
        answers: What POST requests are answered with, by path.
        posted: Bodies of POST requests, by path.
    """

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    accepted: str | None = None
    answers: dict[str, bytes] = field(default_factory=dict)
    posted: dict[str, list[bytes]] = field(default_factory=dict)


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
            if served.accepted not in (None, self.headers["Authorization"]):
                self.send_response(401)
                self.end_headers()
                return
            data = served.files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.end_headers()  # no Content-Length: what is too large shows only as it comes
            self.wfile.write(data or b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            served.posted.setdefault(self.path, []).append(body)
            answer = served.answers.get(self.path)
            self.send_response(401 if answer is None else 200)
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield served
        server.shutdown()
