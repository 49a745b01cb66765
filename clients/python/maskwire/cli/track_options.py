"""Options and help texts of `maskwire track`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from maskwire.cli.coordinates import parse_box, parse_point

if TYPE_CHECKING:
    from maskwire.client import Client


class ObjectPrompt(NamedTuple):
    """A click or a box on a frame."""

    place: tuple[float, ...]  # X, Y, or the box
    object: str | None  # name of the object; None for that of --object
    frame: int | None  # None for that of --frame


def parse_click(text: str) -> ObjectPrompt:
    """Parses "[OBJECT=]X,Y[@FRAME]".

    Raises:
        typer.BadParameter: It is something else.
    """
    name, rest, frame = _divide(text)
    return ObjectPrompt(parse_point(rest), name, frame)


def parse_boxed(text: str) -> ObjectPrompt:
    """Parses "[OBJECT=]X0,Y0,X1,Y1[@FRAME]" likewise."""
    name, rest, frame = _divide(text)
    return ObjectPrompt(parse_box(rest), name, frame)


def _divide(text: str) -> tuple[str | None, str, int | None]:
    name, equals, rest = text.rpartition("=")
    rest, at, frame = rest.partition("@")
    if at and not frame.strip().isdecimal():
        raise typer.BadParameter(f"{text!r} has no number of a frame behind '@', such as {rest}@12")
    return (name if equals and name else None), rest, int(frame) if at else None


@dataclass(frozen=True, kw_only=True)
class TrackingServerOptions:
    """How to call a tracker."""

    tracker: Annotated[
        str | None,
        typer.Option(
            envvar="MASKWIRE_TRACKER",
            help="Tracker address, or several separated by commas; by default that of the running 'maskwire up', else "
            "localhost:50053.",
        ),
    ] = None
    namespace: Annotated[
        str, typer.Option(envvar="MASKWIRE_NAMESPACE", help="Tenant; tracks of other tenants are not visible.")
    ] = ""
    retry_s: Annotated[
        float, typer.Option("--retry-s", min=0, help="Seconds to keep trying while a server is unavailable.")
    ] = 15

    def client(self) -> "Client":
        """Makes a client with these options."""
        from maskwire.client import Client  # imported late: it takes longer than to print a help text

        return Client(tracker=self.tracker, namespace=self.namespace, retry_s=self.retry_s)


@dataclass(frozen=True, kw_only=True)
class FrameOptions:
    """Which frames of a clip are taken, and how large."""

    every: Annotated[int, typer.Option(min=1, help="Take each so many frames.")] = 1
    fps: Annotated[float | None, typer.Option(help="Take at most so many frames of a second.")] = None
    start_s: Annotated[float, typer.Option("--start-s", min=0, help="Take frames from this time on, in seconds.")] = 0
    end_s: Annotated[float | None, typer.Option("--end-s", help="Take no frames from this time on.")] = None
    max_frames: Annotated[int | None, typer.Option(min=1, help="Take at most so many frames.")] = None
    max_side: Annotated[
        int | None,
        typer.Option(min=1, help="Scale frames down to this longer side; clicks and masks are in smaller pixels then."),
    ] = None
    frame_rate: Annotated[
        float | None, typer.Option("--frame-rate", help="Frames of a second of a folder of pictures; 24 by default.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class TrackOptions:
    """Follow objects through a film, an animation or a folder of pictures, from clicks or boxes on its frames.

    A click is X,Y in pixels of the frame. OBJECT= before it names the object, @FRAME behind it the frame, counted
    from 0 among the frames that are taken; --object and --frame hold for those that do not say. Each object is
    followed from its first prompt to the end of the clip, and with --both-ways to its beginning, too.

    What -o names decides what is written: .mp4, .mov, .mkv, .webm or .gif show the clip with masks over it; .json is a
    data set in the form of YouTube-VIS; a folder gets a picture of object numbers for each frame, as DAVIS has them.
    -o may be given several times.

    Films need PyAV: pip install "maskwire\\[video]". GIFs, WebPs, APNGs and folders do not. Ctrl-C stops after the
    frame that is under way, and writes what was found; a second one ends at once.

    Examples:

      maskwire track clip.mp4 --click 120,80 -o overlay.mp4

      maskwire track clip.mp4 --click 120,80 --negative 150,95 --object ball --frame 12 --both-ways -o masks.json

      maskwire track frames/ --click ball=120,80 --box cup=300,40,420,200@10 -o overlay.gif -o masks/

      maskwire track long.mov --start-s 60 --end-s 90 --fps 10 --max-side 1280 --box 40,40,300,400 -o part.webm
    """

    clip: Annotated[
        str,
        typer.Argument(
            metavar="CLIP", help="Film (MP4, MOV, WebM, MKV, AVI, ...), GIF, WebP, APNG, folder of pictures, or URL."
        ),
    ]
    clicks: Annotated[
        list[ObjectPrompt] | None,
        typer.Option(
            "--click",
            "--point",
            "-p",
            parser=parse_click,
            metavar="[OBJECT=]X,Y[@FRAME]",
            help="A click inside an object. Repeatable.",
        ),
    ] = None
    negative: Annotated[
        list[ObjectPrompt] | None,
        typer.Option(
            "--negative",
            "-n",
            parser=parse_click,
            metavar="[OBJECT=]X,Y[@FRAME]",
            help="A click outside it. Repeatable.",
        ),
    ] = None
    boxes: Annotated[
        list[ObjectPrompt] | None,
        typer.Option(
            "--box",
            "-b",
            parser=parse_boxed,
            metavar="[OBJECT=]X0,Y0,X1,Y1[@FRAME]",
            help="A box around an object. Repeatable.",
        ),
    ] = None
    object: Annotated[str, typer.Option(help="Name of the object of prompts that name none.")] = "object"
    frame: Annotated[int, typer.Option(min=0, help="Frame of prompts that name none.")] = 0
    both_ways: Annotated[
        bool, typer.Option("--both-ways", help="Follow from the first prompt to the beginning of the clip, too.")
    ] = False
    output: Annotated[
        list[Path],
        typer.Option("--output", "-o", help="File or folder to write; its ending says what. Repeatable."),
    ]
    form: Annotated[
        Literal["overlay", "masks"] | None,
        typer.Option("--format", "-f", help="What to write into a folder: object numbers (masks), or drawn frames."),
    ] = None
    names: Annotated[bool, typer.Option("--names/--no-names", help="Write objects' names on drawn frames.")] = True
    frames: FrameOptions
    model: Annotated[str, typer.Option(help="Model to use; by default the encoder's.")] = ""
    hand_over: Annotated[
        bool,
        typer.Option(
            "--hand-over",
            help="Follow without memory, for models that have none, such as the demo model, by what objects looked "
            "like on earlier frames. Worse.",
        ),
    ] = False
    lossless: Annotated[bool, typer.Option("--lossless", help="Send frames as PNG instead of JPEG.")] = False
    servers: TrackingServerOptions
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
