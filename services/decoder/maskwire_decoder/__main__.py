"""Starts a decoder: python -m maskwire_decoder --help"""

import asyncio
import sys

from maskwire.v1 import decoder_pb2_grpc
from maskwire_core.config import DecoderSettings
from maskwire_core.rpc import configure_logging, serve
from maskwire_core.store import Store
from pydantic_settings import CliApp

from maskwire_decoder.images import Images
from maskwire_decoder.service import NAME, DecoderService


async def run(settings: DecoderSettings) -> None:
    store = Store(settings.redis_url, settings.redis_timeout_s)
    try:
        service = DecoderService(settings, Images(settings, store))
        await serve(
            settings, NAME, lambda server: decoder_pb2_grpc.add_DecoderServiceServicer_to_server(service, server)
        )
    finally:
        store.close()


def main() -> None:
    settings = CliApp.run(DecoderSettings, cli_args=sys.argv[1:])
    configure_logging(settings)
    asyncio.run(run(settings))


if __name__ == "__main__":
    main()
