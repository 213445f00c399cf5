"""The API server's address, and who we are to it; read again, because both change.

The kubelet renews a Pod's token every hour, long before the old one ends. Certificates in a
kubeconfig are rotated in their files.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from kubernetes.aio import client, config
from kubernetes.aio.client.rest import RESTClientObject

logger = logging.getLogger(__name__)

_REREAD = 60.0
"""Seconds after which credentials are read again, as client-go does it."""
_REREAD_REFUSED = 1.0
"""The same once they were refused."""


class Connection(client.ApiClient):
    """The official client's, with credentials that are read again."""

    def __init__(self, settings: client.Configuration, clock: Callable[[], float]) -> None:
        super().__init__(configuration=settings)
        self._clock, self._read, self._refused = clock, clock(), False
        self._tls = _tls_files(settings)
        self._retired: list[RESTClientObject] = []

    def note_refusal(self) -> None:
        """The API server does not know us: there may be other credentials by now."""
        self._refused = True

    async def refresh(self) -> None:
        """Reads the credentials again when it is time to; called before each request."""
        wait = _REREAD_REFUSED if self._refused else _REREAD
        if self._clock() - self._read < wait:
            return
        self._read, self._refused = self._clock(), False
        settings = self.configuration
        try:
            await _read_credentials(settings)
            if (tls := _tls_files(settings)) != self._tls:
                # A connection keeps the certificate that it began with: calls under way go on
                # by the old ones, which end when they are idle.
                renewed = RESTClientObject(settings)
                self._retired.append(self.rest_client)
                self.rest_client, self._tls = renewed, tls
                logger.info("the certificates have changed")
        # OSError: also ssl.SSLError, where a certificate is new and its key is not yet.
        except (config.ConfigException, OSError, yaml.YAMLError) as error:
            logger.warning("cannot read the credentials again: %s", error)

    async def close(self) -> None:
        """Closes all connections."""
        for each in [*self._retired, self.rest_client]:
            await each.close()


async def connect(clock: Callable[[], float] = time.monotonic) -> Connection:
    """A client with KUBECONFIG, or with the Pod's service account."""
    settings = client.Configuration()
    await _read_credentials(settings)
    # Without this a hot spell opens a hundred connections.
    settings.connection_pool_maxsize = 32
    # Kopf's connection does not ask the environment for a proxy either, and looking for one
    # and for a netrc at every call is a tenth of the operator's CPU.
    settings.client_session_kwargs = {"trust_env": False}
    return Connection(settings, clock)


async def _read_credentials(settings: client.Configuration) -> None:
    """Where the API server is, and the token of this moment."""
    if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
        # Without its own way of reading the token again, which is deaf to a refusal.
        config.load_incluster_config(client_configuration=settings, try_refresh_token=False)
    else:
        # The client looks at the environment when it is imported, and then no more.
        file = os.environ.get("KUBECONFIG")
        await config.load_kube_config(config_file=file, client_configuration=settings)


def _tls_files(settings: client.Configuration) -> list[bytes]:
    """What TLS is set up with: the authorities, our certificate and its key."""
    files = (settings.ssl_ca_cert, settings.cert_file, settings.key_file)
    return [Path(file).read_bytes() for file in files if file]
