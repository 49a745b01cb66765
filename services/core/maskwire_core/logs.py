"""What servers write to standard error."""

import logging
import sys

from maskwire_core.config import Settings


def configure_logging(settings: Settings) -> None:
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for package in ("core", "encoder", "decoder", "gateway"):  # libraries only from WARNING on
        logging.getLogger(f"maskwire_{package}").setLevel(settings.log_level)
