"""TLS handshakes count as connections."""

import asyncio
import functools
import ssl
from asyncio.sslproto import SSLProtocol
from pathlib import Path

import trustme
import uvicorn
from maskwire.cli.free_ports import free_port
from maskwire_core.http.connections import Connections, Timeouts
from maskwire_core.http.fast_connections import BoundedHttpTools
from maskwire_core.http.listening import ListeningLoop
from starlette.responses import PlainTextResponse


def test_handshakes_that_do_not_go_on_give_way(tmp_path: Path) -> None:
    connections, port = Connections(9, Timeouts()), free_port()
    authority, paper = trustme.CA(), tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(paper)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    config = uvicorn.Config(
        PlainTextResponse("served"),
        port=port,
        http=functools.partial(BoundedHttpTools, connections),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        ssl_certfile=paper,
        ssl_keyfile=paper,
    )
    server = uvicorn.Server(config)

    async def silent() -> bool:
        """Returns whether the server has closed a connection on which no handshake begins."""
        reader, writer = await asyncio.open_connection("localhost", port)
        try:
            async with asyncio.timeout(0.3):
                return await reader.read() == b""
        except TimeoutError:
            return False
        finally:
            writer.close()

    async def served() -> bytes:
        reader, writer = await asyncio.open_connection("localhost", port, ssl=trusting)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        try:
            return await reader.read()
        finally:
            writer.close()

    async def run() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)
        silence = [asyncio.create_task(silent()) for _ in range(20)]
        await asyncio.sleep(0.1)
        assert (await served()).endswith(b"served")
        assert sum(await asyncio.gather(*silence)) >= 14  # an address may have two thirds of nine
        while len(connections):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        server.should_exit = True
        await serving

    buffer_bytes = SSLProtocol.max_size
    try:
        with asyncio.Runner(loop_factory=ListeningLoop) as runner:
            runner.run(run())
        assert SSLProtocol.max_size < buffer_bytes
    finally:
        SSLProtocol.max_size = buffer_bytes
