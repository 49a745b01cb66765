"""Logs to standard error: lines for people, or JSON objects."""

import json
import logging
import sys
import time
from typing import Any

from maskwire_core import call_context
from maskwire_core.config import Settings
from maskwire_core.telemetry import tracing


def bind(namespace: str, image_id: str) -> None:
    """Says which image the current call is about; what is logged from here on names it."""
    call = call_context.current()
    call.namespace, call.image_id = namespace, image_id


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time (UTC), level, logger, message; request_id, namespace, image_id and
    trace_id if they are known; error, with its traceback, if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        call = call_context.current_if_any()
        about = {name: getattr(call, name, None) for name in ("request_id", "namespace", "image_id")}
        about["trace_id"] = tracing.trace_id()
        fields |= {name: value for name, value in about.items() if value}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


def configure_logging(settings: Settings) -> None:
    """Sends this process's logs to standard error, in the settings' format and from their level on."""
    handler = logging.StreamHandler(sys.stderr)
    lines = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if settings.log_format == "json" else lines)
    logging.basicConfig(handlers=[handler])
    for package in ("core", "encoder", "decoder", "tracker", "gateway"):  # libraries log from WARNING on
        logging.getLogger(f"maskwire_{package}").setLevel(settings.log_level)
