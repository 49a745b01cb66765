"""TLS certificates of the gRPC servers."""

import logging
from pathlib import Path
from typing import Any, cast

import grpc

from maskwire_core.config import ServiceSettings
from maskwire_core.runtime.file_watch import FileWatch

log = logging.getLogger(__name__)


class _Certificates:
    """A certificate's files, checked for changes before each handshake, so that renewing one needs no restart."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._files = [path for path in (certificate, key, client_ca) if path is not None]
        self._watch = FileWatch(*self._files)
        self._watch.changed()
        self.first = self._read()

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns the files' content if they have changed, otherwise None. gRPC calls it on a thread of its own."""
        if not self._watch.changed():
            return None
        try:
            fresh = self._read()
        except OSError as error:
            log.error("cannot read the certificate: %s; the previous one stays in use", error)
            return None
        log.info("the certificate has changed")
        return fresh

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate, key, *client_ca = [path.read_bytes() for path in self._files]
        return grpc.ssl_server_certificate_configuration([(key, certificate)], *client_ca)


def server_credentials(settings: ServiceSettings) -> grpc.ServerCredentials | None:
    """Returns the credentials that the settings name; None for plaintext. If they name a client CA, callers must have a
    certificate that it signed. Exits if the settings are contradictory or a file cannot be read."""
    if settings.tls_cert is None and settings.tls_key is None and settings.tls_client_ca is None:
        return None
    if settings.tls_cert is None or settings.tls_key is None:
        raise SystemExit("error: TLS needs both --tls-cert and --tls-key")
    try:
        files = _Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    except OSError as error:
        raise SystemExit(f"error: cannot read {error.filename}: {error.strerror}") from error
    return grpc.dynamic_ssl_server_credentials(
        files.first,
        cast(Any, files.changed),  # may return None, contrary to its type stub
        require_client_authentication=settings.tls_client_ca is not None,
    )
