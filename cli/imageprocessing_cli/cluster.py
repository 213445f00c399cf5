"""The cluster as kubectl reaches it, in plain objects.

The official client reads kubeconfigs and credentials as kubectl does; its models would
double the time that a command needs to start (1.1 s of CPU instead of 0.4).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import urllib3.exceptions
import yaml
from imageprocessing_contract import names
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.client.rest import RESTResponse

from imageprocessing_cli.errors import CommandError, ServerError, UnreachableError

Object = dict[str, Any]
"""An object of the API, as JSON has it."""

REQUESTS = f"/apis/{names.API_VERSION}"
CORE = "/api/v1"
BATCH = "/apis/batch/v1"

_JSON, _MERGE = "application/json", "application/merge-patch+json"
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
_CONNECT, _READ = 10, 60  # seconds
_WATCH = 240
"""Seconds of one watch; proxies in between cut connections that are older."""
_RECONNECTS = 15
"""In a row, with growing pauses: two minutes."""
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Cluster:
    """Calls to one API server; each raises ServerError or, without an answer, UnreachableError."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self.client, self.namespace = client, namespace

    def path(self, api: str, plural: str, name: str = "", sub: str = "") -> str:
        """The path of objects of this namespace, or of one of them."""
        parts = [api, "namespaces", self.namespace, plural, quote(name, safe=""), sub]
        return "/".join(part for part in parts if part)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Object | None = None,
        as_table: bool = False,
    ) -> Object:
        """One request; returns the object that the server answers with."""
        kind = _MERGE if method == "PATCH" else _JSON
        headers = {"Accept": _TABLE if as_table else _JSON, "Content-Type": kind}
        response = self._send(method, _with(path, query), headers, body, _READ)
        with _connected(self.client):
            text = response.read()
        try:
            found: Object = json.loads(text)
        except ValueError as error:
            said = text.decode(errors="replace")[:300]
            host = self.client.configuration.host
            raise CommandError(f"{host} is no API server; it answered: {said}") from error
        return found

    def requests_path(self, *, all_namespaces: bool = False) -> str:
        """The path of this namespace's requests, or of all."""
        return f"{REQUESTS}/{names.PLURAL}" if all_namespaces else self.path(REQUESTS, names.PLURAL)

    def request(self, name: str) -> Object:
        """One ImageProcessingRequest."""
        return self.call("GET", self.path(REQUESTS, names.PLURAL, name))

    def patch_request(self, name: str, body: Object) -> Object:
        """Changes these fields of a request."""
        return self.call("PATCH", self.path(REQUESTS, names.PLURAL, name), body=body)

    def list(self, api: str, plural: str, labels: str = "", **query: str | int) -> list[Object]:
        """All objects of a kind in this namespace, with `limit` the first so many."""
        query = {"labelSelector": labels, **query}
        items: list[Object] = self.call("GET", self.path(api, plural), query=query)["items"]
        return items

    def create(self, api: str, plural: str, body: Object, *, dry_run: bool = False) -> Object:
        """Creates an object; with `dry_run` the server only says whether it would."""
        query = {"dryRun": "All"} if dry_run else None
        return self.call("POST", self.path(api, plural), query=query, body=body)

    def lines(self, path: str, query: Mapping[str, str | int], silence: float) -> Iterator[bytes]:
        """Lines of an answer that lasts; raises UnreachableError after `silence` seconds without."""
        response = self._send("GET", _with(path, query), {"Accept": "*/*"}, None, silence)
        rest = b""
        try:
            with _connected(self.client):
                for chunk in response.response.stream(amt=None):
                    *whole, rest = (rest + chunk).split(b"\n")
                    yield from whole
            if rest:
                yield rest
        finally:
            response.response.close()

    def follow(self, name: str, sleep: Callable[[float], None] = time.sleep) -> Iterator[Object]:
        """A request as it is, and then each time it changes; raises CommandError when deleted.

        A connection that is lost is made again: whole API servers are replaced meanwhile.
        """
        uid, lost = None, 0
        while True:
            try:
                first = self.request(name)
                uid = uid or first["metadata"]["uid"]
                for found in chain([first], self._events(first)):
                    lost = 0
                    if found["metadata"]["uid"] != uid:
                        raise _deleted(name)
                    yield found
            except CommandError as error:
                if not error.transient or uid is None or lost == _RECONNECTS:
                    raise
                lost += 1
                sleep(min(lost, 10))

    def _events(self, found: Object) -> Iterator[Object]:
        name = found["metadata"]["name"]
        query: dict[str, str | int] = {
            "watch": "true",
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": found["metadata"]["resourceVersion"],
            "timeoutSeconds": _WATCH,
        }
        for line in self.lines(self.requests_path(), query, _WATCH + _READ):
            event = json.loads(line)
            if event["type"] == "ERROR":
                return  # the version is too old to go on from
            if event["type"] == "DELETED":
                raise _deleted(name)
            yield event["object"]

    def _send(
        self, method: str, path: str, headers: dict[str, str], body: Object | None, silence: float
    ) -> RESTResponse:
        with _connected(self.client):
            prepared = self.client.param_serialize(
                method, path, header_params=headers, auth_settings=["BearerToken"]
            )
            timeout = (_CONNECT, silence)
            response = self.client.call_api(*prepared[:3], body, _request_timeout=timeout)
            if response.status >= 400:
                raise ServerError(response.status, response.read().decode(errors="replace"))
        return response


def _deleted(name: str) -> CommandError:
    return CommandError(f'the request "{name}" was deleted')


def _with(path: str, query: Mapping[str, str | int] | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def connect(kubeconfig: Path | None, context: str | None, namespace: str | None) -> Cluster:
    """By the kubeconfig that kubectl would use, else as the Pod that this runs in."""
    settings = Configuration()
    file = str(kubeconfig) if kubeconfig else None
    try:
        if file is None and context is None and _in_cluster():
            config.load_incluster_config(client_configuration=settings)
            # As kubectl has it; the variable comes by the downward API.
            here = os.environ.get("POD_NAMESPACE") or _OWN_NAMESPACE.read_text().strip()
        else:
            config.load_kube_config(file, context, settings, persist_config=False)
            here = _namespace_of(file, context)
    # The client looks into a file of another kind without asking what it is.
    except (config.ConfigException, OSError, yaml.YAMLError, TypeError, KeyError) as error:
        message = f"no usable kubeconfig ({error}); name one with --kubeconfig or KUBECONFIG"
        raise CommandError(message) from error
    return Cluster(ApiClient(settings), namespace or here)


def _in_cluster() -> bool:
    """Whether there is no kubeconfig, but a Pod's service account."""
    given = config.KUBE_CONFIG_DEFAULT_LOCATION.split(":")
    return _OWN_NAMESPACE.exists() and not any(Path(f).expanduser().exists() for f in given)


def _namespace_of(file: str | None, context: str | None) -> str:
    contexts, active = config.list_kube_config_contexts(file)
    found = next((c for c in contexts if c["name"] == context), active)
    return str(found["context"].get("namespace") or "default")


@contextmanager
def _connected(client: ApiClient) -> Iterator[None]:
    try:
        yield
    except ApiException as error:  # the client makes one of a TLS error
        message = f"the API server {client.configuration.host}: {error.reason}"
        raise UnreachableError(message) from error
    except urllib3.exceptions.HTTPError as error:
        cause = getattr(error, "reason", None) or error
        message = f"the API server {client.configuration.host} cannot be reached: {cause}"
        raise UnreachableError(message) from error
