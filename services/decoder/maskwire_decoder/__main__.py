"""Starts a decoder: python -m maskwire_decoder --help"""

import asyncio

from maskwire.v1 import decoder_pb2_grpc
from maskwire_core.config import DecoderSettings, from_command_line
from maskwire_core.rpc.server import Service, serve
from maskwire_core.storage.store import open_store
from maskwire_core.telemetry.logs import configure_logging
from maskwire_core.telemetry.tracing import configure_tracing, flush

from maskwire_decoder.images import Images
from maskwire_decoder.segmenter import Segmenter
from maskwire_decoder.service import NAME, RIGHTS, DecoderService


async def run(settings: DecoderSettings) -> None:
    store = open_store(settings.redis_url, settings.redis_timeout_s)
    try:
        segmenter = Segmenter(settings, Images(settings, store), store)
        service = DecoderService(segmenter)
        await serve(
            settings,
            Service(
                NAME,
                lambda server: decoder_pb2_grpc.add_DecoderServiceServicer_to_server(service, server),
                RIGHTS,
                segmenter.readings(),
                segmenter.self_test,
                service.drain,
            ),
        )
    finally:
        store.close()


def main() -> None:
    settings = from_command_line(DecoderSettings)
    configure_logging(settings)
    configure_tracing("decoder", settings.trace_to)
    try:
        asyncio.run(run(settings))
    finally:
        flush()


if __name__ == "__main__":
    main()
