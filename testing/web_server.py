"""An HTTP server with files in memory, which records what it is asked."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer


@dataclass
class Web:
    """What the server at http://localhost:{port} serves and has recorded.

    Attributes:
        port: TCP port of 127.0.0.1.
        files: Contents by path.
        asked: Path and Host header of each GET request.
        authorizations: Authorization header of each GET request.
        accepted: The Authorization header that GET requests must have, else they get 401; None accepts all.
        answers: Replies to POST requests by path; other paths get 401.
        posted: Bodies of POST requests by path.
    """

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    accepted: str | None = None
    answers: dict[str, bytes] = field(default_factory=dict)
    posted: dict[str, list[bytes]] = field(default_factory=dict)


@contextlib.contextmanager
def answering(server: BaseServer) -> Iterator[None]:
    """Lets a server answer in a thread while the body runs. It ends at once: by itself it would look only every half
    second whether it is to end."""
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()


@contextlib.contextmanager
def serving() -> Iterator[Web]:
    """Runs the server on a free port, in a thread. A path that begins with /redirect leads to /picture.jpg."""
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
            self.end_headers()  # without Content-Length: a client notices what is too large while it reads
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
        with answering(server):
            yield served
