"""Starts a decoder: python -m maskwire_decoder --help"""

from maskwire.v1 import decoder_pb2_grpc
from maskwire_core.cold_tier.tier import open_cold_tier
from maskwire_core.config import DecoderSettings
from maskwire_core.rpc.server import Service, serve, start
from maskwire_core.storage.store import open_store

from maskwire_decoder.downloads import Downloads
from maskwire_decoder.images import Images
from maskwire_decoder.segmenter import Segmenter
from maskwire_decoder.service import NAME, RIGHTS, DecoderService


async def run(settings: DecoderSettings) -> None:
    store = open_store(settings.redis_url, settings.redis_timeout_s, settings.redis_password_file)
    try:
        cold = open_cold_tier(settings, store)
        images = Images(settings, store, cold)
        segmenter = Segmenter(settings, images, store)
        downloads = Downloads(settings.downloads, images, store, cold, segmenter.scheduler)
        service = DecoderService(segmenter, downloads)
        async with images.deletions.watching():
            await serve(
                settings,
                Service(
                    NAME,
                    lambda server: decoder_pb2_grpc.add_DecoderServiceServicer_to_server(service, server),
                    RIGHTS,
                    segmenter.live_metrics(),
                    segmenter.self_test,
                    service.drain,
                ),
            )
    finally:
        store.close()


if __name__ == "__main__":
    start(DecoderSettings, "decoder", run)
