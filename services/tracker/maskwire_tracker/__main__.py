"""Starts a tracker: python -m maskwire_tracker --help"""

from maskwire.v1 import tracker_pb2_grpc
from maskwire_core.config import TrackerSettings
from maskwire_core.rpc.server import Service, serve, start
from maskwire_core.runtime.process_memory import returning
from maskwire_core.storage.store import open_store

from maskwire_tracker.encoding import FrameEncoder
from maskwire_tracker.predictors import Predictors
from maskwire_tracker.service import NAME, RIGHTS, TrackerService
from maskwire_tracker.tracker import Tracker

_RETURN_S = 1.0  # from one look whether memory of closed tracks can be given back to the next


async def run(settings: TrackerSettings) -> None:
    store = open_store(settings.redis_url, settings.redis_timeout_s, settings.redis_password_file)
    try:
        encoder = FrameEncoder(settings)
        tracker = Tracker(settings, store, encoder, Predictors(store, settings.run_threads, settings.cuda == "auto"))
        service = TrackerService(tracker)
        try:
            async with returning(lambda: tracker.closed_bytes, _RETURN_S, collects=True):
                await serve(
                    settings,
                    Service(
                        NAME,
                        lambda server: tracker_pb2_grpc.add_TrackerServiceServicer_to_server(service, server),
                        RIGHTS,
                        tracker.live_metrics(),
                        tracker.self_test,
                        service.drain,
                    ),
                )
        finally:
            await encoder.close()
    finally:
        store.close()


if __name__ == "__main__":
    start(TrackerSettings, "tracker", run)
