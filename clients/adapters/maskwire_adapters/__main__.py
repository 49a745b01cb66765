"""Starts an adapter: python -m maskwire_adapters --help"""

import asyncio
import contextlib
import functools
import logging
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from maskwire import AsyncClient, MaskwireError
from maskwire_core.http.connections import Connections, Timeouts
from maskwire_core.http.listening import ListeningLoop
from maskwire_core.http.problems import Problem
from maskwire_core.http.visitors import Visitors
from starlette.applications import Starlette

from maskwire_adapters.anylabeling import AnyLabeling
from maskwire_adapters.cvat import Cvat
from maskwire_adapters.front import Front
from maskwire_adapters.label_studio import LabelStudio
from maskwire_adapters.references import References
from maskwire_adapters.segmenter import Segmenter
from maskwire_adapters.status_line import MessageInStatusLine

_MAX_CONNECTIONS = 1024
_CHECK_S = 5.0  # the servers may be started after the adapter

app = typer.Typer(
    help="""Maskwire inside labelling tools: clicks in the tool, masks from your servers.

    Start the servers in one terminal:   maskwire up

    and an adapter in another:           python -m maskwire_adapters label-studio --port 9090

    MASKWIRE_ENCODER and MASKWIRE_DECODER, or options, name the servers, and MASKWIRE_TOKEN holds the token if they want
    one. Everybody who can reach an adapter uses its token; by default only this machine can.
    """,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


Encoder = Annotated[str, typer.Option(envvar="MASKWIRE_ENCODER", help="Address of the encoder.", metavar="HOST:PORT")]
Decoder = Annotated[
    str, typer.Option(envvar="MASKWIRE_DECODER", help="Address of the decoder, or several separated by commas.")
]
Namespace = Annotated[str, typer.Option(envvar="MASKWIRE_NAMESPACE", help="Tenant; empty: the token's own.")]
Model = Annotated[str, typer.Option(help="Name of the model; empty: the servers' default. maskwire models list")]
Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for other machines and containers.")]
Hosts = Annotated[
    str,
    typer.Option(
        envvar="MASKWIRE_HOSTS",
        help="Names by which the tool calls the adapter, separated by commas; * for any. IP addresses, localhost, "
        "host.docker.internal and this machine's name need none.",
    ),
]
Origins = Annotated[
    str,
    typer.Option(
        envvar="MASKWIRE_ORIGINS",
        help="Web pages that may call the adapter, such as https://labels.example, separated by commas; * for all. "
        "Tools call it from their servers, which needs none.",
    ),
]


@app.command("label-studio")
def label_studio(
    port: Annotated[int, typer.Option(help="To listen at.")] = 9090,
    host: Host = "127.0.0.1",
    encoder: Encoder = "localhost:50051",
    decoder: Decoder = "localhost:50052",
    namespace: Namespace = "",
    model: Model = "",
    hosts: Hosts = "",
    origins: Origins = "",
    host_url: Annotated[
        str | None,
        typer.Option(
            envvar="LABEL_STUDIO_URL", help="Label Studio's address; tasks' images are fetched from it alone."
        ),
    ] = None,
    api_token: Annotated[
        str | None,
        typer.Option(
            envvar="LABEL_STUDIO_API_KEY",
            help="A personal access token or a legacy token, from its Account & Settings. Better in the environment.",
        ),
    ] = None,
    files: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder that /data/local-files/?d=... names files in."),
    ] = None,
    simplify_px: Annotated[float, typer.Option(min=0, help="Tolerance of polygons in pixels; 0: all corners.")] = 1,
    prewarm: Annotated[
        int,
        typer.Option(
            min=0,
            max=100,
            help="How many of the next tasks are embedded ahead, in the direction of work; 0: none. Needs --host-url "
            "and --api-token.",
        ),
    ] = 2,
) -> None:
    """Label Studio's machine learning backend.

    In the project: Settings > Model > Connect Model, URL http://localhost:9090, and switch "Interactive preannotations"
    on. The labelling configuration needs BrushLabels, BitmaskLabels, PolygonLabels or VectorLabels, and for prompts
    KeyPointLabels or RectangleLabels with smart="true" and the same labels.
    """
    references = References(host_url, api_token, files)
    segmenter = Segmenter(AsyncClient(encoder, decoder, namespace=namespace), model)
    adapter = LabelStudio(segmenter, references, simplify_px, prewarm)
    _serve(adapter.application(), segmenter, host, port, hosts, origins)


@app.command("cvat")
def cvat(
    port: Annotated[int, typer.Option(help="To listen at.")] = 8070,
    host: Host = "127.0.0.1",
    encoder: Encoder = "localhost:50051",
    decoder: Decoder = "localhost:50052",
    namespace: Namespace = "",
    model: Model = "",
    hosts: Hosts = "",
    origins: Origins = "",
) -> None:
    """CVAT's interactor: AI Tools > Interactors > Maskwire.

    CVAT asks Nuclio's dashboard for its functions; this stands in its place. In CVAT's server and workers set
    CVAT_SERVERLESS=1, CVAT_NUCLIO_HOST and CVAT_NUCLIO_PORT=8070 to where this listens, --host 0.0.0.0 here if CVAT
    runs in containers.
    """

    segmenter = Segmenter(AsyncClient(encoder, decoder, namespace=namespace), model)
    _serve(Cvat(segmenter, port).application(), segmenter, host, port, hosts, origins)


@app.command("anylabeling")
def anylabeling(
    port: Annotated[int, typer.Option(help="To listen at.")] = 8000,
    host: Host = "127.0.0.1",
    encoder: Encoder = "localhost:50051",
    decoder: Decoder = "localhost:50052",
    namespace: Namespace = "",
    model: Model = "",
    hosts: Hosts = "",
    origins: Origins = "",
) -> None:
    """X-AnyLabeling's remote server.

    In X-AnyLabeling choose the model "Remote-Server", and give it the address http://127.0.0.1:8000 when it asks.
    """

    segmenter = Segmenter(AsyncClient(encoder, decoder, namespace=namespace), model)
    _serve(AnyLabeling(segmenter).application(), segmenter, host, port, hosts, origins)


def _serve(application: Starlette, segmenter: Segmenter, host: str, port: int, hosts: str, origins: str) -> None:
    """Serves an adapter until it is stopped; it then closes the segmenter's client."""
    logging.basicConfig(format="%(asctime)s %(message)s")  # of refused requests: not every tool shows the reason
    config = uvicorn.Config(
        Front(application, Visitors(_listed(hosts), _listed(origins), host, "adapter")),
        host=host,
        port=port,
        http=functools.partial(MessageInStatusLine, Connections(_MAX_CONNECTIONS, Timeouts())),  # type: ignore[arg-type]
        ws="none",
        proxy_headers=False,
        log_level="warning",
        server_header=False,
    )

    async def serve() -> None:
        await _check_model(segmenter)
        typer.echo(f"listening at http://{host}:{port}      Stop: Ctrl-C", err=True)
        await uvicorn.Server(config).serve()

    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=ListeningLoop) as runner:
        runner.run(serve())


def _listed(text: str) -> list[str]:
    return [part for each in text.split(",") if (part := each.strip())]


async def _check_model(segmenter: Segmenter) -> None:
    """Exits if the encoder does not serve the model, and only warns if it does not answer yet."""
    try:
        async with asyncio.timeout(_CHECK_S):
            await segmenter.model()
    except Problem as problem:
        typer.echo(f"error: {problem.message}", err=True)
        raise typer.Exit(1) from problem
    except (MaskwireError, TimeoutError) as error:
        typer.echo(f"warning: Maskwire's encoder does not answer yet: {str(error) or 'timeout'}", err=True)


if __name__ == "__main__":
    app()
