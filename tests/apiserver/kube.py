"""The API server as a test uses it: one connection, plain objects."""

from __future__ import annotations

import base64
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

Object = dict[str, Any]
T = TypeVar("T")

PATHS = {
    "ipr": "/apis/imageprocessing.dev/v1alpha1/namespaces/{}/imageprocessingrequests",
    "jobs": "/apis/batch/v1/namespaces/{}/jobs",
    **{
        plural: f"/api/v1/namespaces/{{}}/{plural}"
        for plural in (
            "pods",
            "secrets",
            "configmaps",
            "events",
            "resourcequotas",
            "serviceaccounts",
        )
    },
}
MERGE = {"Content-Type": "application/merge-patch+json"}
_PAUSE = 0.05  # seconds between two looks at something that is waited for


def eventually(look: Callable[[], T | None], what: str, seconds: float = 60) -> T:
    """What `look` returns, once that is true."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(_PAUSE)


class Kube:
    """Objects of one namespace."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.namespace = namespace
        self._http = _connect(kubeconfig)

    def close(self) -> None:
        self._http.close()

    def path(self, plural: str, name: str = "", sub: str = "") -> str:
        parts = [PATHS[plural].format(self.namespace), name, sub]
        return "/".join(part for part in parts if part)

    def call(self, method: str, path: str, **options: Any) -> Object:
        """Raises httpx.HTTPStatusError, with what the server said."""
        response = self.ask(method, path, **options)
        if response.is_error:
            message = f"{method} {path}: {response.status_code} {response.text}"
            raise httpx.HTTPStatusError(message, request=response.request, response=response)
        found: Object = response.json()
        return found

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer, whatever it is."""
        return self._http.request(method, path, **options)

    def create(self, plural: str, body: Object) -> Object:
        return self.call("POST", self.path(plural), json=body)

    def get(self, plural: str, name: str) -> Object:
        return self.call("GET", self.path(plural, name))

    def list(self, plural: str, labels: str = "", fields: str = "") -> list[Object]:
        query = {"labelSelector": labels, "fieldSelector": fields}
        items: list[Object] = self.call("GET", self.path(plural), params=query)["items"]
        return items

    def patch(self, plural: str, name: str, body: Object, sub: str = "") -> Object:
        return self.call("PATCH", self.path(plural, name, sub), json=body, headers=MERGE)

    def delete(self, plural: str, name: str, propagation: str = "Background") -> None:
        body = {"propagationPolicy": propagation, "gracePeriodSeconds": 0}
        self.call("DELETE", self.path(plural, name), json=body)


def connection_of(kubeconfig: Path) -> tuple[str, ssl.SSLContext, dict[str, str]]:
    """The API server's address, TLS with the client's certificate, headers with its token."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=_text(cluster, "certificate-authority"))
    if certificate := _text(user, "client-certificate"):
        # OpenSSL reads certificates and keys from files alone.
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(f"{certificate}\n{_text(user, 'client-key')}\n")
            file.flush()
            context.load_cert_chain(file.name)
    headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
    return cluster["server"], context, headers


def _connect(kubeconfig: Path) -> httpx.Client:
    server, context, headers = connection_of(kubeconfig)
    return httpx.Client(base_url=server, verify=context, headers=headers, timeout=30)


def _text(entry: dict[str, Any], key: str) -> str | None:
    """PEM that a kubeconfig holds itself or names by its path."""
    if data := entry.get(f"{key}-data"):
        return base64.b64decode(data).decode()
    return Path(entry[key]).read_text() if key in entry else None
