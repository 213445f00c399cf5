"""The Kubernetes API in plain objects, through the official client's connection.

The client's own models cost more to build than the call; its configuration, its
tokens and its TLS are what we want of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from imageprocessing_contract import names

from imageprocessing_operator.credentials import Connection
from imageprocessing_operator.metrics import Metrics

Object = dict[str, Any]
"""An object of the API, as JSON has it."""

_TIMEOUT = aiohttp.ClientTimeout(total=30)
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
_PAGE = 100
"""Items of a list that are read at once: a Job takes 40 kB while it is being read."""
MERGE_PATCH = "application/merge-patch+json"


class APIError(Exception):
    """The API server refused, or could not be reached (status 0).

    `retry_after`: seconds that it asks for before the next call.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        retry_after: float = 0.0,
        causes: Iterable[str] = (),
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message
        self.retry_after, self._causes = retry_after, frozenset(causes)

    @property
    def namespace_terminates(self) -> bool:
        """Whether nothing can be created because the namespace is being deleted."""
        return "NamespaceTerminating" in self._causes

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later."""
        return self.status in (0, 408, 429) or self.status >= 500


class API:
    """Calls to the API server; each raises APIError."""

    def __init__(self, connection: Connection, metrics: Metrics) -> None:
        self._client, self._metrics = connection, metrics

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """One request; returns the object that the server answers with."""
        # Only lists are asked for with a query.
        verb = "list" if query and method == "GET" else _VERBS[method]
        headers = {"Accept": "application/json", "Content-Type": content_type}
        if query:
            path = f"{path}?{urlencode(query)}"
        await self._client.refresh()
        try:
            prepared = await self._client.param_serialize(
                method, path, header_params=headers, auth_settings=["BearerToken"]
            )
            # The body goes past param_serialize, which would walk through all of it.
            response = await self._client.call_api(
                prepared[0], prepared[1], prepared[2], body, _request_timeout=_TIMEOUT
            )
            text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._metrics.count_call(verb, 0)
            raise APIError(0, "Unreachable", str(error) or type(error).__name__) from error
        self._metrics.count_call(verb, response.status)
        if response.status == 401:
            self._client.note_refusal()
        # The API server's priority and fairness gives whole seconds.
        after = response.headers.get("Retry-After", "")
        asked = float(after) if after.isdecimal() else 0.0
        try:
            answer = msgspec.json.decode(text)
        except ValueError as error:  # of msgspec, or UnicodeDecodeError
            said = text[:200].decode(errors="replace")
            raise APIError(response.status, "NotJSON", said, asked) from error
        if not isinstance(answer, dict):
            raise APIError(response.status, "NotAnObject", "the answer is no JSON object")
        if response.status >= 400:
            reason, message = answer.get("reason", "Unknown"), answer.get("message", "")
            causes = (answer.get("details") or {}).get("causes") or []
            whys = [cause.get("reason", "") for cause in causes]
            raise APIError(response.status, reason, message, asked, whys)
        return answer

    async def list(self, path: str, query: Mapping[str, str | int]) -> AsyncIterator[Object]:
        """All items of a list; no more than one page of them is in memory."""
        more = ""
        while True:
            page = await self.call("GET", path, query={**query, "limit": _PAGE, "continue": more})
            more = page.get("metadata", {}).get("continue", "")
            for item in page.get("items", []):
                yield item
            if not more:
                return

    async def version(self, path: str) -> int:
        """Where etcd is, asked at a list's path."""
        page = await self.call("GET", path, query={"limit": 1})
        return int(page["metadata"]["resourceVersion"])

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.close()


def requests_path(namespace: str | None = None, name: str | None = None, sub: str = "") -> str:
    """Path of requests: all of them, a namespace's, or one."""
    return _path(f"/apis/{names.GROUP}/{names.VERSION}", names.PLURAL, namespace, name, sub)


def jobs_path(namespace: str | None = None, name: str | None = None) -> str:
    """Path of Jobs."""
    return _path("/apis/batch/v1", "jobs", namespace, name)


def core_path(plural: str, namespace: str, name: str | None = None) -> str:
    """Path of objects of the core group: pods, events, secrets."""
    return _path("/api/v1", plural, namespace, name)


def _path(
    root: str, plural: str, namespace: str | None, name: str | None = None, sub: str = ""
) -> str:
    parts = [root]
    if namespace is not None:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(plural)
    if name is not None:
        parts.append(quote(name, safe=""))
    if sub:
        parts.append(sub)
    return "/".join(parts)
