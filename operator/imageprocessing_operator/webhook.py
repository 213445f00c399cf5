"""Delivering the webhook: Standard Webhooks 1.0.0, one attempt at a time."""

from __future__ import annotations

import asyncio
import base64
import binascii
import email.utils
import json
import logging
import ssl
from datetime import UTC, datetime
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import httpx
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import Condition, Reason
from standardwebhooks.webhooks import Webhook as Signer

from imageprocessing_operator.api import API, APIError, core_path
from imageprocessing_operator.guarded_http import AddressNotAllowedError, guarded_client
from imageprocessing_operator.state import Delivery, Request

logger = logging.getLogger(__name__)
_EVENT_TYPE = "imageprocessingrequest.finished"
_SECRET_PREFIX = "whsec_"  # noqa: S105
"""Of signing secrets in Standard Webhooks; nothing else of the namespace's is taken for one."""
_AT_ONCE = 512
"""Deliveries under way; each takes 80 KB and a file (measured), of which a process may have 1,024."""
_AT_ONCE_TO_ONE = 32
"""The same to one receiver: one that hangs does not hold up the others."""


class Courier:
    """Sends one message; the outbox decides when, and keeps count."""

    def __init__(self, api: API, guard: Guard) -> None:
        self._api, self._guard = api, guard
        # The system's certificates, as for downloads; SSL_CERT_FILE replaces them. Reading
        # them takes 40 ms of CPU.
        self._tls = ssl.create_default_context()
        self._all = asyncio.Semaphore(_AT_ONCE)
        # By host and port; one is gone with its last delivery.
        self._of_one: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def deliver(self, request: Request, attempt: int) -> Delivery:
        """One attempt, in its turn; every outcome is a value."""
        try:
            async with self._turn(request), self._all:
                secret = await self._secret(request, attempt)
                if isinstance(secret, Delivery):
                    return secret
                return await self._post(request, secret, attempt)
        except Exception:
            # A failed attempt is tried later; an error here would be tried at once, for ever.
            logger.exception("webhook of %s/%s", request.namespace, request.name)
            return Delivery(
                attempt=attempt,
                generation=request.generation,
                outcome="failed",
                reason=Reason.RETRYING,
                message="an error in the operator, see its log",
            )

    def _turn(self, request: Request) -> asyncio.Semaphore:
        assert request.spec.webhook is not None  # noqa: S101 - the outbox is open
        receiver = urlsplit(request.spec.webhook.url).netloc.lower()
        return self._of_one.setdefault(receiver, asyncio.Semaphore(_AT_ONCE_TO_ONE))

    async def _secret(self, request: Request, attempt: int) -> Signer | Delivery:
        """Read at the time of sending, so that a rotated Secret counts at once."""
        assert request.spec.webhook is not None  # noqa: S101 - the outbox is open
        ref = request.spec.webhook.secret_key_ref

        def missing(reason: Reason, message: str) -> Delivery:
            return Delivery(
                attempt=attempt,
                generation=request.generation,
                outcome="no secret",
                reason=reason,
                message=message,
            )

        try:
            secret = await self._api.call("GET", core_path("secrets", request.namespace, ref.name))
        except APIError as error:
            if error.status == 404:
                message = f"there is no Secret {ref.name}"
                return missing(Reason.SECRET_NOT_FOUND, message)
            return missing(Reason.SECRET_NOT_USABLE, f"cannot read Secret {ref.name}: {error}")
        value = secret.get("data", {}).get(ref.key)
        if value is None:
            return missing(Reason.SECRET_NOT_FOUND, f"Secret {ref.name} has no key {ref.key}")
        try:
            return _signer(base64.b64decode(value).decode("ascii").strip())
        except (binascii.Error, UnicodeDecodeError, RuntimeError, ValueError):
            message = (
                f"key {ref.key} of Secret {ref.name} is no signing secret: "
                "it must be whsec_ and base64, as Standard Webhooks has it"
            )
            return missing(Reason.SECRET_NOT_USABLE, message)

    async def _post(self, request: Request, signer: Signer, attempt: int) -> Delivery:
        assert request.spec.webhook is not None  # noqa: S101
        assert request.status.webhook is not None  # noqa: S101
        body = render(request)
        now = datetime.now(UTC)
        event_id = request.status.webhook.event_id
        headers = {
            "content-type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signer.sign(event_id, now, body),
        }

        def failed(message: str, code: int | None = None, after: float | None = None) -> Delivery:
            return Delivery(
                attempt=attempt,
                generation=request.generation,
                outcome="gone" if code == httpx.codes.GONE else "failed",
                reason=Reason.RETRYING,
                message=message,
                status_code=code,
                retry_after=after,
            )

        timeout = request.spec.webhook.timeout_seconds
        try:
            async with (
                asyncio.timeout(timeout),
                guarded_client(self._guard, timeout=timeout, tls=self._tls) as client,
                client.stream(
                    "POST", request.spec.webhook.url, content=body, headers=headers
                ) as response,
            ):
                # The body is not read: a receiver says it all in the status code.
                code, after = response.status_code, response.headers.get("retry-after")
        except AddressNotAllowedError as error:
            return failed(f"not sent: {error}")
        except TimeoutError:
            return failed(f"the receiver did not answer within {timeout} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return failed(f"{type(error).__name__}: {error}"[:300])
        if httpx.codes.is_success(code):
            return Delivery(
                attempt=attempt,
                generation=request.generation,
                outcome="delivered",
                reason=Reason.DELIVERED,
                message="",
                status_code=code,
            )
        return failed(f"the receiver answered {code}", code, _seconds(after, now))


def _signer(secret: str) -> Signer:
    """Raises ValueError for what is no signing secret; the library would decode anything."""
    if not base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True):
        raise ValueError("it is empty")
    if not secret.startswith(_SECRET_PREFIX):
        raise ValueError("it is a secret of another kind")
    return Signer(secret)


def render(request: Request) -> str:
    """The message; the same text at every attempt, whatever happened between them."""
    status = request.status
    finished = status.completion_time
    results = status.results
    ready = status.is_true(Condition.READY)
    images = status.images
    return json.dumps(
        {
            "type": _EVENT_TYPE,
            "timestamp": finished.isoformat().replace("+00:00", "Z") if finished else None,
            "data": {
                "request_id": request.request_id,
                "status": "completed" if ready else "failed",
                "csv_url": results.csv_url if results else None,
                "namespace": request.namespace,
                "name": request.name,
                "images": {
                    "total": images.total if images else 0,
                    "succeeded": images.succeeded if images else 0,
                    "failed": images.failed if images else 0,
                },
                "failed_url": results.failed_url if results else None,
                "report_url": results.report_url if results else None,
            },
        },
        separators=(",", ":"),
    )


def _seconds(retry_after: str | None, now: datetime) -> float | None:
    """Retry-After in seconds: a number, or an HTTP date (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return None
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        moment = email.utils.parsedate_to_datetime(retry_after)
    except (ValueError, OverflowError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())
