"""Plays tenant and kubelet as cheaply as Python can: it makes requests, and ends each Pod at once.

One watch a kind of object, read into the few fields that count; one call ends a Pod.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec
from imageprocessing_contract import names

from tests.apiserver import kubelet
from tests.apiserver.kube import MERGE
from tests.e2e.receiver import SECRET

_REQUESTS = f"/apis/{names.API_VERSION}"
_IMAGES, _SHARDS = 30, 3
_REPORTS = {
    "plan": kubelet.planned(_IMAGES, _SHARDS).decode(),
    "shards": "",
    "finalize": kubelet.finalized(_IMAGES, _SHARDS).decode(),
}
_WHOLE = kubelet.whole(_IMAGES).decode()
_LOOK_AGAIN = 0.2  # seconds: the storage of a new kind takes a moment
WIDE_SHARDS = 100_000
"""What an Indexed Job allows."""
_MANY = kubelet.planned(WIDE_SHARDS, WIDE_SHARDS).decode()
_SHARDED, _WIDE = "sharded", "wide"
"""What the name of a request begins with that has shards, few that end or many that run."""


class Condition(msgspec.Struct):
    """Of a Job or a request."""

    type: str
    status: str


class Metadata(msgspec.Struct):
    """What counts of it."""

    name: str = ""
    uid: str = ""
    labels: dict[str, str] = {}


class Status(msgspec.Struct):
    """What counts of it."""

    conditions: list[Condition] = []

    def is_true(self, kind: str) -> bool:
        """Whether that condition is there and True."""
        return any(c.type == kind and c.status == "True" for c in self.conditions)


class Object(msgspec.Struct):
    """Any object."""

    metadata: Metadata
    status: Status = msgspec.field(default_factory=Status)


class Event(msgspec.Struct):
    """One line of a watch."""

    type: str
    object: Object


_read = msgspec.json.Decoder(Event).decode
See = Callable[[Event], None]


class Driver:
    """One namespace's tenant and kubelet; `settled` is called with each request that is."""

    def __init__(self, session: aiohttp.ClientSession, namespace: str, hook: str) -> None:
        self._session, self._namespace, self._hook = session, namespace, hook
        self._calls: set[asyncio.Task[None]] = set()
        self._settled: set[str] = set()
        self.settled: Callable[[str], None] = lambda _: None
        self.running = False
        """Whether Pods run and stay, in place of ending at once."""

    @classmethod
    @asynccontextmanager
    async def at_work(
        cls, session: aiohttp.ClientSession, namespace: str, host: str
    ) -> AsyncIterator[Driver]:
        """Makes the namespace and what is in it, and works until the block ends."""
        receiver = await asyncio.start_server(_receive, host, 0)
        port = receiver.sockets[0].getsockname()[1]
        driver = cls(session, namespace, f"http://{host}:{port}/hook")
        await driver._prepare()
        async with receiver, asyncio.TaskGroup() as tasks:
            watches = [
                tasks.create_task(driver.watch("pods", driver._see_pod, "status.phase=Pending")),
                tasks.create_task(driver.watch("ipr", driver._see_settled, "status.settled=true")),
            ]
            yield driver
            for task in (*watches, *driver._calls):
                task.cancel()

    async def _prepare(self) -> None:
        await self.call("POST", "/api/v1/namespaces", {"metadata": {"name": self._namespace}})
        account = {"metadata": {"name": "imageprocessing-worker"}}
        await self.call("POST", self.path("serviceaccounts"), account)
        secret = {"metadata": {"name": "hook"}, "stringData": {"key": SECRET}}
        await self.call("POST", self.path("secrets"), secret)

    def path(self, plural: str, name: str = "", sub: str = "") -> str:
        """Of objects of the namespace."""
        root = {"ipr": _REQUESTS, "jobs": "/apis/batch/v1"}.get(plural, "/api/v1")
        kind = names.PLURAL if plural == "ipr" else plural
        parts = (f"{root}/namespaces/{self._namespace}/{kind}", name, sub)
        return "/".join(filter(None, parts))

    async def call(self, method: str, path: str, body: Any) -> bytes:
        """One call; raises aiohttp.ClientResponseError."""
        headers = MERGE if method == "PATCH" else {"Content-Type": "application/json"}
        data = msgspec.json.encode(body)
        async with self._session.request(method, path, data=data, headers=headers) as answer:
            said = await answer.read()
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status} {said.decode()}")
            return said

    async def watch(self, plural: str, see: See, fields: str = "") -> None:
        """Shows what is there and then each event, until it is cancelled.

        The API server ends a watch when it likes; the next one shows all there is again.
        """
        query = {"watch": "true", "fieldSelector": fields}
        timeout = aiohttp.ClientTimeout()
        while True:
            async with self._session.get(self.path(plural), params=query, timeout=timeout) as seen:
                if seen.status == 200:
                    async for line in seen.content:
                        see(_read(line))
            await asyncio.sleep(_LOOK_AGAIN)

    # -- tenant ------------------------------------------------------------------------

    async def apply(self, name: str, **spec: Any) -> bytes:
        """Creates a request, of three shards if its name begins with `sharded`."""
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name},
            "spec": {
                "source": {"configMapKeyRef": {"name": "products", "key": "products.csv"}},
                "output": {"gcs": {"bucket": "catalogue"}},
                "webhook": {"url": self._hook, "secretKeyRef": {"name": "hook", "key": "key"}},
                **spec,
            },
        }
        return await self.call("POST", self.path("ipr"), body)

    async def apply_settled(self, name: str) -> None:
        """Creates one that is history already."""
        await self.apply(name)
        await self.call("PATCH", self.path("ipr", name, "status"), {"status": {"settled": True}})

    async def apply_wide(self) -> str:
        """Creates one with very many shards; the name of their Job, once it is there."""
        made = msgspec.json.decode(await self.apply(_WIDE), type=Object)
        job = names.job_name(_WIDE, made.metadata.uid, "shards")
        while True:
            async with self._session.get(self.path("jobs", job)) as answer:
                if answer.status == 200:
                    return job
            await asyncio.sleep(_LOOK_AGAIN)

    async def set_indexes(self, job: str, done: str, failed: str) -> None:
        """Writes a Job's status as its controller does."""
        counts = {"succeeded": done.count(",") + 1, "failed": failed.count(",") + 1}
        status = {"completedIndexes": done, "failedIndexes": failed, **counts}
        await self.call("PATCH", self.path("jobs", job, "status"), {"status": status})

    async def wide_status(self) -> int:
        """Bytes of its status, as JSON."""
        async with self._session.get(self.path("ipr", _WIDE)) as answer:
            return len(msgspec.json.encode((await answer.json())["status"]))

    def _see_settled(self, event: Event) -> None:
        name = event.object.metadata.name
        if event.type == "ADDED" and name not in self._settled:
            self._settled.add(name)
            self.settled(name)

    # -- kubelet -----------------------------------------------------------------------

    def _see_pod(self, event: Event) -> None:
        # It leaves this watch when it has ended.
        if event.type == "ADDED":
            call = asyncio.create_task(self._end(event.object.metadata))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _end(self, pod: Metadata) -> None:
        """The worker has done its step, or it runs."""
        wide_shard = pod.name.startswith(_WIDE) and pod.labels[names.LABEL_STEP] == "shards"
        runs = self.running or wide_shard
        stamp = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        state: dict[str, Any] = {"running": {"startedAt": stamp}}
        if not runs:
            times = {"startedAt": stamp, "finishedAt": stamp}
            state = {"terminated": {"exitCode": 0, "message": _message(pod), **times}}
        worker = {
            "name": names.CONTAINER,
            "ready": runs,
            "restartCount": 0,
            "image": "i",
            "imageID": "i",
            "state": state,
        }
        status: dict[str, Any] = {
            "phase": "Running" if runs else "Succeeded",
            "containerStatuses": [worker],
        }
        if runs:
            status["conditions"] = [{"type": "Ready", "status": "True"}]
        await self.call("PATCH", self.path("pods", pod.name, "status"), {"status": status})


def _message(pod: Metadata) -> str:
    """The report that a worker leaves."""
    if pod.name.startswith(_WIDE):
        return _MANY
    if pod.name.startswith(_SHARDED):
        return _REPORTS[pod.labels[names.LABEL_STEP]]
    return _WHOLE


async def _receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One webhook: the answer is 204."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    await writer.drain()
    writer.close()
