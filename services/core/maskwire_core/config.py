"""Settings of the servers. Each field is an environment variable (prefix MASKWIRE_) and a command-line option.

A description that does not fit on its field's line is a docstring below the field.
"""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from maskwire.host_port import bare_host
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, CliApp, NoDecode, SettingsConfigDict

MIB = 1 << 20


def _listed(value: object) -> list[str]:
    parts = value if isinstance(value, list) else [value]
    return [name for part in parts for word in str(part).split(",") if (name := word.strip())]


Listed = Annotated[list[str], NoDecode, BeforeValidator(_listed)]
"""Values separated by commas, or given by repeating the option."""


class Settings(BaseSettings):
    """Settings of every server."""

    model_config = SettingsConfigDict(
        env_prefix="MASKWIRE_",
        env_ignore_empty=True,
        cli_kebab_case=True,
        cli_hide_none_type=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    host: Annotated[str, AfterValidator(bare_host)] = "127.0.0.1"
    """Address to listen on, such as 127.0.0.1 or ::1; 0.0.0.0 for all interfaces, or :: for those of IPv6 as well."""
    port: int = Field(0, ge=0, le=65535, description="Port to listen on; 0 takes a free one and logs it.")
    tls_cert: Path | None = Field(None, description="Certificate chain of this server (PEM); without it, no TLS.")
    tls_key: Path | None = Field(None, description="Private key of that certificate (PEM).")
    tls_client_ca: Path | None = None
    """Authorities (PEM), one of which must have signed callers' certificates (mutual TLS)."""
    drain_s: float = Field(20, ge=0, description="Seconds in which accepted work may finish after SIGTERM or Ctrl-C.")
    metrics_port: int | None = Field(None, ge=0, le=65535)
    """Port that offers metrics for Prometheus at /metrics, without TLS and tokens; none by default."""
    trace_to: str | None = Field(None, pattern="^https?://")
    """Collector that receives OpenTelemetry traces by OTLP over HTTP, such as http://localhost:4318; none by
    default."""
    log_format: Literal["text", "json"] = Field("text", description="Readable lines, or one JSON object a line.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged.")


class ServiceSettings(Settings):
    """Settings of the servers that offer gRPC and use the store."""

    reflection: bool | None = None
    """Offer gRPC server reflection (for grpcurl and the like); by default unless --tokens is set."""
    tokens: Path | None = None
    """File of bearer tokens, made by 'maskwire token'; without it, every caller has all rights."""
    health_port: int | None = Field(None, ge=0, le=65535)
    """Port for health checks only, without TLS and tokens; none by default."""
    connection_age_s: float = Field(300, ge=0)
    """Seconds after which clients are asked to reconnect, so that they find servers that were added; calls in progress
    continue. 0: never."""
    dead_after_s: float = Field(3, ge=1)
    """Seconds after which a caller that does not answer pings counts as dead. Raise it for links on which a single
    message takes longer."""
    max_request_bytes: int = Field(4 * MIB, ge=256 << 10)
    """Largest message that is received, in bytes; larger ones are refused unread. So much may be on its way of every
    stream."""
    max_streams: int = Field(384, ge=1, description="Streams that may be open; tenants share them.")
    call_bytes: int = Field(256 * MIB, ge=1)
    """Memory for what calls have sent, and for their answers until they are read, in bytes; tenants share it."""
    self_test_s: float = Field(60, ge=0)
    """Seconds between self-tests while the server is idle; health reports their outcome. 0: no self-tests."""
    recycle_mib: int = Field(0, ge=0)
    """Resident memory, in MiB, above which the server drains and exits, so that its supervisor restarts it before the
    system kills it (Linux). 0: never."""
    redis_url: str = "redis://localhost:6379/0"
    """Store: redis://, rediss:// (TLS) or unix:// address of Redis or Valkey, redis+sentinel://HOST:PORT,.../SERVICE,
    or redis+cluster://HOST:PORT,..."""
    redis_password_file: Path | None = None
    """File with the password of the user that redis_url names, such as a Docker secret; read at the start."""
    redis_timeout_s: float = Field(2, gt=0, description="Seconds without a response after which a store command fails.")


class ColdTierSettings(ServiceSettings):
    """Settings of the servers that read what is behind the store."""

    cold_tier: str | None = None
    """Folder, or address of an object store such as s3://BUCKET/FOLDER, in which embeddings outlive the store's memory;
    none by default. All encoders and decoders of a store need the same."""
    cold_timeout_s: float = Field(2, gt=0, description="Seconds in which one of its files must have been read.")


AnySettings = TypeVar("AnySettings", bound=Settings)


def from_command_line(kind: type[AnySettings]) -> AnySettings:
    """Reads settings from options and the environment; prints invalid ones, a line each, and exits."""
    try:
        return CliApp.run(kind, cli_args=sys.argv[1:])
    except ValidationError as error:
        for wrong in error.errors():
            name = "_".join(map(str, wrong["loc"]))
            print(
                f"error: setting {name} (MASKWIRE_{name.upper()}): {wrong['msg'].removeprefix('Value error, ')}",
                file=sys.stderr,
            )
        sys.exit(1)


class EncoderSettings(ColdTierSettings):
    """Maskwire encoder: turns images into SAM 2 embeddings and stores them."""

    port: int = Field(50051, ge=0, le=65535, description="Port to listen on; 0 takes a free one and logs it.")
    model: Listed = Field(["demo"], min_length=1)
    """demo, a published SAM 2 name such as sam2.1_hiera_tiny, a model registered with 'maskwire models add', or any
    name together with --config. Several are separated by commas, or the option is repeated; the first is the
    default."""
    config: str | None = None
    """SAM 2 model configuration: a YAML file, or one in the sam2 package (configs/sam2.1/...)."""
    checkpoint: Path | None = Field(None, description="Weights of the model: a .pt or .safetensors file.")
    models: Path = Path("~/.cache/maskwire/models")
    """Folder with the checkpoints of published models."""
    cache: Path = Path("~/.cache/maskwire")
    """Folder for results that are computed once per model and machine, for faster starts."""
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N; each encoder process uses one device.")
    backend: Literal["auto", "torch", "openvino"] = "auto"
    """Backend of the image encoder on a CPU; auto uses OpenVINO if it is installed and its masks agree with those of
    torch."""
    threads: int = Field(0, ge=0, description="CPU threads of the model; 0 for the default of torch or OpenVINO.")
    store_codec: Literal["fp32", "fp16", "int8", "int4", "klt"] = "fp16"
    """How embeddings are stored; int8 and int4 take less space and cost exactness. klt takes least: a transform fitted
    to the model, which the first start takes a minute or more for."""
    store_iou: float = Field(0.99, gt=0, le=1)
    """Mean IoU that masks from embeddings stored as klt have with those from exact ones, of clicks and of boxes on
    photographs; a model that does not reach it is stored as fp16."""
    fit_on: Path | None = None
    """Folder of 16 or more pictures like those that are served: klt is fitted to one half of them, and --store-iou is
    measured on the other. 44 photographs that come with Maskwire by default."""
    ttl_s: int = Field(86_400, ge=1)
    """Seconds after which an embedding expires, from when it was last embedded."""
    quota_bytes: int = Field(0, ge=0)
    """Bytes of embeddings and kept files that each namespace may store; those that would expire first are evicted. 0:
    no limit. All encoders of a store need the same value."""
    keep_sources_s: int = Field(0, ge=0)
    """Seconds for which the files of images are kept in the store where callers ask for it (keep_source), so that they
    can have regions of the images embedded without sending them again. The files count for the namespace's quota, and
    are deleted with the embedding. 0: none are kept."""
    picture_cache_bytes: int = Field(256 * MIB, ge=0)
    """With --keep-sources-s, memory for decoded pictures of which regions were cut in the last half minute, in bytes: 3
    for each pixel. Further regions of them need not read and decode the file again. Tenants share it; 0: none."""
    cold_ttl_s: int = Field(2_592_000, ge=1)
    """Seconds after which an embedding leaves the cold tier, from when it was last embedded. Images that were embedded
    with a shorter time to live than --ttl-s, and frames of videos, never get there."""
    cold_bytes: int = Field(0, ge=0, description="Bytes of the cold tier; the oldest files give way. 0: no limit.")
    queue_limit: int = Field(64, ge=1)
    """Images of each priority that may wait; beyond it, the tenant with most waiting is refused."""
    queue_bytes: int = Field(1024 * MIB, ge=1)
    """Bytes of the files of each priority's waiting images, in memory or on disk; the largest file always fits."""
    max_batch: int = Field(0, ge=0, description="Largest number of images in a batch; 0 for 32 on CUDA and 1 on a CPU.")
    max_wait_ms: float = Field(5, ge=0)
    """Milliseconds that an image waits for others to fill its batch; 0 while the encoder is idle."""
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    """Precision of the image encoder; auto uses the fastest whose masks agree with those of fp32: a mean IoU of 0.999
    on CUDA, and of 0.995 on a CPU, which has fp32 and bf16."""
    compile: bool = False
    """Compile the model on CUDA; takes minutes at the first start, and is kept in the cache folder."""
    device_memory: float = Field(0.9, gt=0, le=1)
    """Share of the CUDA device's memory that this encoder may use; batches adapt."""
    readers: int = Field(0, ge=0)
    """Processes that decode image files; 0 for one a core on CUDA and 2 on a CPU. Half as many more, at most 4,
    decode large files, so that others do not wait for them."""
    decode_bytes: int = Field(2048 * MIB, ge=256 * MIB)
    """Most memory that decoding an image file may take, in bytes; a file that may take more is refused. All large files
    together may take as much, and from 4 --readers on twice as much, which tenants share; others at most 512 MiB for
    each of --readers."""
    writers: int = Field(8, ge=1, description="Threads that write embeddings to the store.")
    upload_pause_s: float = Field(20, gt=0)
    """Seconds after which an upload of which nothing comes is ended; so is one of which less than 16 KiB a second
    come."""
    upload_bytes: int = Field(512 * MIB, ge=1)
    """Memory for files that arrive and wait, in bytes; tenants share it."""
    spool_above_bytes: int = Field(8 * MIB, ge=0)
    """Files above this size are kept on disk while they arrive and wait, in bytes."""
    spool_bytes: int = Field(2048 * MIB, ge=0)
    """Disk for such files, in bytes; tenants share it."""
    spool: Path | None = None
    """Folder for such files; the system's folder for temporary files by default. They have no names and are gone when
    the process is."""
    max_image_bytes: int = Field(64 * MIB, ge=1, description="Largest image file accepted, in bytes.")
    max_image_pixels: int = Field(120_000_000, ge=1, description="Largest image accepted, in pixels.")

    @staticmethod
    def large_readers(readers: int) -> int:
        """Number of processes that decode large image files, beside `readers` for the others."""
        return min(4, max(1, readers // 2))

    @field_validator("device")
    @classmethod
    def _one_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            raise ValueError(
                f"{value!r} is not auto, cpu, cuda or cuda:N; 'maskwire up --device cuda:0,cuda:1' or 'all' starts an "
                "encoder for each of several"
            )
        return value


class DecoderSettings(ColdTierSettings):
    """Maskwire decoder: turns prompts on stored embeddings into masks."""

    port: int = Field(50052, ge=0, le=65535, description="Port to listen on; 0 takes a free one and logs it.")
    cache_bytes: int = Field(1024 * MIB, ge=0, description="Memory for cached embeddings, in bytes.")
    saved_logits_ttl_s: int = Field(600, ge=1, description="Seconds after which logits saved for refinement expire.")
    saved_logits_bytes: int = Field(32 * MIB, ge=0)
    """Memory in the store for saved logits of one embedding, in bytes."""
    saved_logits_store_bytes: int = Field(1024 * MIB, ge=0)
    """Memory in the store for all logits that this decoder has saved lately, in bytes; the tenant that has most gives
    way. It has room for one embedding at least."""
    logits_cache_bytes: int = Field(256 * MIB, ge=0)
    """Memory for the logits of objects that were decoded lately, in bytes."""
    workers: int = Field(0, ge=0)
    """Largest number of prompts decoded at the same time; 0 for the number of cores."""
    threads: int = Field(0, ge=0)
    """CPU threads of a decode while it is the only one; 0 for the number of cores, at most 8."""
    queue_limit: int = Field(256, ge=1)
    """Prompts of each priority that may wait; beyond it, the tenant with most waiting is refused."""
    max_waiting: int = Field(1024, ge=1)
    """Calls that may wait (wait_ms) for images which are not embedded yet; tenants share them."""
    max_prompts: int = Field(128, ge=1, description="Largest number of prompts in one request.")
    max_points: int = Field(256, ge=1, description="Largest number of points in one prompt.")
    max_mask_pixels: int = Field(120_000_000, ge=1)
    """Largest image, in pixels, whose masks are made or taken as pixels (PNG, packed bits, polygons, mask_rle of a
    prompt); those of larger ones are run lengths or logits."""
    max_crops: int = Field(128, ge=0, description="Largest number of crops in one call of GenerateMasks.")
    max_clicks: int = Field(262_144, ge=1)
    """Largest number of clicks in one call of GenerateMasks, in the image and all of its crops."""
    max_clicks_per_batch: int = Field(4096, ge=1)
    """Largest number of clicks between two responses of GenerateMasks."""
    max_generated_masks: int = Field(16_384, ge=1)
    """Largest number of masks that one call of GenerateMasks may find, before duplicates are removed."""
    generated_mask_bytes: int = Field(64 * MIB, ge=1)
    """Memory for these masks of all calls, in bytes; one call may have half of it."""
    downloads: bool = Field(True)
    """Whether callers who may segment may fetch embeddings and exported decoders, weights included, to decode by
    themselves."""

    @property
    def decode_workers(self) -> int:
        """Largest number of prompts decoded at the same time."""
        return self.workers or _cores()

    @property
    def decode_threads(self) -> int:
        """CPU threads of a decode while it is the only one."""
        return self.threads or min(_cores(), 8)


class TrackerSettings(ServiceSettings):
    """Maskwire tracker: follows objects through the frames of videos."""

    port: int = Field(50053, ge=0, le=65535, description="Port to listen on; 0 takes a free one and logs it.")
    encoder: str = Field("localhost:50051", description="Address of the encoder, or several separated by commas.")
    workers: int = Field(1, ge=1, description="Frames in which objects are found at the same time.")
    threads: int = Field(0, ge=0, description="CPU threads of each; 0 for the number of cores, at most 8.")
    cuda: Literal["auto", "never"] = "auto"
    """Whether models run on CUDA; auto where the installed ONNX Runtime has it (onnxruntime-gpu) and gives what it
    gives on the CPU."""
    queue_limit: int = Field(256, ge=1)
    """Frames that may wait for a thread; beyond it, the tenant with most waiting is refused."""
    frames_ahead: int = Field(4, ge=0)
    """Frames that are embedded ahead of the one that is followed, as far as there is memory (`tracks_bytes`)."""
    save_every: int = Field(8, ge=1)
    """Frames after which a track's state is written to the store; what is not written is followed again after a
    crash."""
    track_ttl_s: int = Field(3600, ge=1, description="Seconds after which a track that nobody uses expires.")
    track_bytes: int = Field(512 * MIB, ge=MIB)
    """Most memory of one track's state, in bytes, and as much in the store. A clip's frames that are farthest from the
    one that is followed are forgotten first."""
    tracks_bytes: int = Field(2048 * MIB, ge=MIB)
    """Memory of the state of all open tracks and of embeddings of their frames, in bytes; tenants share it."""
    stored_tracks_bytes: int = Field(4096 * MIB, ge=1)
    """Bytes of tracks that each namespace may store. All trackers of a store need the same value."""
    max_stored_tracks: int = Field(1000, ge=1)
    """Number of tracks that each namespace may store, those that are open among them. All trackers of a store need the
    same value."""
    max_objects: int = Field(64, ge=1, description="Largest number of objects of a track.")
    max_points: int = Field(256, ge=1, description="Largest number of points of one prompt.")
    max_clip_frames: int = Field(20_000, ge=1, description="Largest number of frames of a clip.")
    max_frame_bytes: int = Field(16 * MIB, ge=1, description="Largest file of a frame, in bytes.")
    clip_bytes: int = Field(1024 * MIB, ge=1, description="Largest clip, in bytes of its files.")
    clips_bytes: int = Field(2048 * MIB, ge=1)
    """Bytes of clips that each namespace may store. All trackers of a store need the same value."""
    max_clips: int = Field(1000, ge=1)
    """Number of clips that each namespace may store. All trackers of a store need the same value."""
    clip_ttl_s: int = Field(86_400, ge=1, description="Seconds after which a clip that nobody uses expires.")

    @property
    def run_threads(self) -> int:
        """CPU threads of one frame."""
        return self.threads or min(_cores(), 8)


class GatewaySettings(Settings):
    """Maskwire gateway: HTTP and WebSocket in front of encoders, decoders and trackers."""

    port: int = Field(9001, ge=0, le=65535, description="Port to listen on; 0 takes a free one and logs it.")
    encoder: str = Field("localhost:50051", description="Address of the encoder, or several separated by commas.")
    decoder: str = Field("localhost:50052", description="Address of the decoder, or several separated by commas.")
    tracker: str = Field("localhost:50053", description="Address of the tracker, or several separated by commas.")
    timeout_s: float = Field(60, gt=0)
    """Longest time for one call of a server, including retries, in seconds."""
    retry_s: float = Field(5, ge=0)
    """How long a call is retried while a server is unavailable or overloaded, in seconds."""
    hosts: Listed = []
    """Names by which this gateway is called, such as masks.example or *.masks.example, separated by commas; * for any.
    IP addresses, localhost, the name of this machine and that of --host need none."""
    origins: Listed = []
    """Web pages of other origins that may use this gateway, such as https://labels.example, separated by commas; * for
    all. The gateway's own page always may."""
    other_model: Literal["default", "refuse"] = "default"
    """Whether /sam2 requests for a SAM 2 version that is not served are answered by the default model, which the header
    X-Maskwire-Model then names, or refused with 404."""
    urls: bool = Field(False, description="Fetch images by URL for /sam2 requests; from public addresses only.")
    url_hosts: Listed = []
    """Hosts (name or name:port, separated by commas) that URLs may name although they are private."""
    url_timeout_s: float = Field(10, gt=0, description="Longest time for fetching one URL, in seconds.")
    max_image_bytes: int = Field(64 * MIB, ge=1, description="Largest image file accepted, in bytes.")
    trusted_proxies: Listed = []
    """Addresses or networks of proxies in front of the gateway, separated by commas, whose X-Forwarded-For names the
    caller; without tokens, callers share the limits by their addresses."""
    max_requests: int = Field(256, ge=1)
    """Requests that are served at the same time. A caller (a token, or without tokens an address) may have twice as
    many as are free; more are refused."""
    max_sockets: int = Field(512, ge=1)
    """WebSockets that are open at the same time, shared in the same way."""
    max_connections: int = Field(4096, ge=1)
    """Connections that are open at the same time, shared by addresses in the same way; beyond it, those that wait for a
    request are closed, the oldest first."""
    body_memory_bytes: int = Field(512 * MIB, ge=1)
    """Memory for bodies, frames of WebSockets, and large answers that were not read, of all requests in progress, in
    bytes; shared in the same way."""
    header_timeout_s: float = Field(10, gt=0, description="Longest time for receiving a request's headers, in seconds.")
    answer_timeout_s: float = Field(60, gt=0)
    """Seconds after which a caller who reads nothing of an answer is disconnected."""
    body_timeout_s: float = Field(30, gt=0, description="Longest time for receiving the body of a request, in seconds.")


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
