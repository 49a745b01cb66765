"""Starts an adapter: python -m maskwire_adapters --help"""

from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from maskwire import AsyncClient
from starlette.applications import Starlette

from maskwire_adapters.anylabeling import AnyLabeling
from maskwire_adapters.cvat import Cvat
from maskwire_adapters.label_studio import LabelStudio
from maskwire_adapters.references import References
from maskwire_adapters.segmenter import Segmenter

app = typer.Typer(
    help="""Maskwire inside labelling tools: clicks in the tool, masks from your servers.

    Start the servers in one terminal:   maskwire up

    and an adapter in another:           python -m maskwire_adapters label-studio --port 9090

    Servers are named by MASKWIRE_ENCODER and MASKWIRE_DECODER or by options; a token, where they want one, by
    MASKWIRE_TOKEN. Whoever reaches an adapter uses that token: by default only this machine does.
    """,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


Encoder = Annotated[
    str, typer.Option(envvar="MASKWIRE_ENCODER", help="Address of the encoder.", metavar="HOST:PORT", show_default=True)
]
Decoder = Annotated[
    str, typer.Option(envvar="MASKWIRE_DECODER", help="Address of the decoder, or several separated by commas.")
]
Namespace = Annotated[str, typer.Option(envvar="MASKWIRE_NAMESPACE", help="Tenant; empty: the token's own.")]
Model = Annotated[str, typer.Option(help="Name of the model; empty: the servers' default. maskwire models list")]
Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for other machines and containers.")]


@app.command("label-studio")
def label_studio(
    port: Annotated[int, typer.Option(help="To listen at.")] = 9090,
    host: Host = "127.0.0.1",
    encoder: Encoder = "localhost:50051",
    decoder: Decoder = "localhost:50052",
    namespace: Namespace = "",
    model: Model = "",
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
            help="Its API token (a legacy token: Account & Settings). Better in the environment.",
        ),
    ] = None,
    files: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder that /data/local-files/?d=... names files in."),
    ] = None,
    simplify_px: Annotated[float, typer.Option(min=0, help="Tolerance of polygons in pixels; 0: all corners.")] = 1,
) -> None:
    """Label Studio's machine learning backend.

    In the project: Settings > Model > Connect Model, URL http://localhost:9090, and switch "Interactive preannotations"
    on. The labelling configuration needs BrushLabels (masks) or PolygonLabels, and for prompts KeyPointLabels or
    RectangleLabels with smart="true" and the same labels.
    """
    segmenter = Segmenter(AsyncClient(encoder, decoder, namespace=namespace), model)
    references = References(host_url, api_token, files)
    _serve(LabelStudio(segmenter, references, simplify_px).application(), host, port)


@app.command("cvat")
def cvat(
    port: Annotated[int, typer.Option(help="To listen at.")] = 8070,
    host: Host = "127.0.0.1",
    encoder: Encoder = "localhost:50051",
    decoder: Decoder = "localhost:50052",
    namespace: Namespace = "",
    model: Model = "",
) -> None:
    """CVAT's interactor: AI Tools > Interactors > Maskwire.

    CVAT asks Nuclio's dashboard for its functions; this stands in its place. In CVAT's server and workers set
    CVAT_SERVERLESS=1, CVAT_NUCLIO_HOST and CVAT_NUCLIO_PORT=8070 to where this listens, --host 0.0.0.0 here if CVAT
    runs in containers.
    """
    segmenter = Segmenter(AsyncClient(encoder, decoder, namespace=namespace), model)
    _serve(Cvat(segmenter, port).application(), host, port)


@app.command("anylabeling")
def anylabeling(
    port: Annotated[int, typer.Option(help="To listen at.")] = 8000,
    host: Host = "127.0.0.1",
    encoder: Encoder = "localhost:50051",
    decoder: Decoder = "localhost:50052",
    namespace: Namespace = "",
    model: Model = "",
) -> None:
    """X-AnyLabeling's remote server: choose the model "Remote-Server" there.

    XANYLABELING_SERVER_URL=http://localhost:8000 names the address to X-AnyLabeling.
    """
    segmenter = Segmenter(AsyncClient(encoder, decoder, namespace=namespace), model)
    _serve(AnyLabeling(segmenter).application(), host, port)


def _serve(application: Starlette, host: str, port: int) -> None:
    typer.echo(f"listening at http://{host}:{port}      Stop: Ctrl-C", err=True)
    uvicorn.run(application, host=host, port=port, log_level="warning", server_header=False)


if __name__ == "__main__":
    app()
