"""What servers write to standard error: lines for people, or JSON objects."""

import json
import logging
import sys
import time
from contextvars import ContextVar
from typing import Any

from maskwire_core.config import Settings
from maskwire_core.telemetry import tracing

_call: ContextVar[dict[str, str] | None] = ContextVar("_call", default=None)


def begin(request_id: str) -> None:
    """A call begins: what is logged from here on, in its tasks too, carries its id."""
    _call.set({"request_id": request_id})


def bind(namespace: str, image_id: str) -> None:
    """The call that runs is about an image."""
    fields = _call.get()
    if fields is not None:
        fields.update(namespace=namespace, image_id=image_id)


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message; request_id, namespace, image_id and trace_id where
    they are known; error, with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **(_call.get() or {}),
        }
        if (trace_id := tracing.trace_id()) is not None:
            fields["trace_id"] = trace_id
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


def configure_logging(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    lines = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if settings.log_format == "json" else lines)
    logging.basicConfig(handlers=[handler])
    for package in ("core", "encoder", "decoder", "gateway"):  # libraries only from WARNING on
        logging.getLogger(f"maskwire_{package}").setLevel(settings.log_level)
