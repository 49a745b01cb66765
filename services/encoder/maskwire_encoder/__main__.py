"""Starts an encoder: python -m maskwire_encoder --help"""

import contextlib
import sys
from collections.abc import Callable

import torch
from maskwire.v1 import encoder_pb2_grpc
from maskwire_core.cold_tier.mover import Mover
from maskwire_core.cold_tier.tier import open_cold_tier
from maskwire_core.config import EncoderSettings
from maskwire_core.errors import ServiceError
from maskwire_core.models.registry import ModelError
from maskwire_core.rpc.server import Service, serve, start
from maskwire_core.runtime.periodic import repeating
from maskwire_core.storage.store import open_store

from maskwire_encoder.backends.model import Model
from maskwire_encoder.checkpoints.loading import ModelSource, find
from maskwire_encoder.encoder import ImageEncoder
from maskwire_encoder.gauges import live_metrics, live_metrics_of_models
from maskwire_encoder.self_test import SelfTest
from maskwire_encoder.service import NAME, RIGHTS, EncoderService

_PUBLISH_PERIOD_S = 2
_MOVE_PERIOD_S = 1
_FORGET_PERIOD_S = 5
_PATIENCE_S = 20  # with a store that is silent


async def run(settings: EncoderSettings, load: Callable[[ModelSource, EncoderSettings], Model] = Model) -> None:
    """Serves the models that the settings name until SIGTERM or SIGINT.

    Args:
        settings: The encoder's settings.
        load: Loads a model.
    """
    store = open_store(settings.redis_url, settings.redis_timeout_s, settings.redis_password_file)
    try:
        try:
            await store.ping_patiently(_PATIENCE_S)
        except ServiceError as error:
            sys.exit(f"error: {error} (store at {store.address}; set --redis-url)")
        if settings.threads:
            torch.set_num_threads(settings.threads)
        cold = open_cold_tier(settings, store)
        encoder = ImageEncoder(settings, store, [load(source, settings) for source in find(settings)], cold)
        await encoder.publish_exports()
        await encoder.pipeline.start()
        self_test = SelfTest(encoder.pipeline)
        await self_test.run()
        service = Service(
            NAME,
            lambda server: encoder_pb2_grpc.add_EncoderServiceServicer_to_server(
                EncoderService(encoder, store, cold), server
            ),
            RIGHTS,
            [*live_metrics(encoder.pipeline, settings.queue_limit), *live_metrics_of_models(encoder.models.values())],
            self_test.run,
            broken=encoder.pipeline.lost,
        )
        try:
            async with contextlib.AsyncExitStack() as meanwhile:
                await meanwhile.enter_async_context(repeating(_PUBLISH_PERIOD_S, encoder.publish_exports))
                await meanwhile.enter_async_context(repeating(_FORGET_PERIOD_S, encoder.decoded.drop_idle))
                if cold is not None:
                    mover = Mover(cold, store, settings.cold_ttl_s, settings.cold_bytes)
                    await meanwhile.enter_async_context(repeating(_MOVE_PERIOD_S, mover.step))
                await serve(settings, service)
        finally:
            encoder.pipeline.close()
    except ModelError as error:
        sys.exit(f"error: {error}")
    finally:
        store.close()


if __name__ == "__main__":
    start(EncoderSettings, "encoder", run)
