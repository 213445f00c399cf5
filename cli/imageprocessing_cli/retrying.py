"""The request that does another one's failures again. Pure."""

from __future__ import annotations

import copy
import re
from typing import Any

from imageprocessing_contract import names


def next_name(name: str) -> str:
    """`spring` -> `spring-retry` -> `spring-retry-2`."""
    if found := re.fullmatch(r"(.*-retry)(?:-(\d+))?", name):
        return f"{found[1]}-{int(found[2] or 1) + 1}"
    return f"{name}-retry"


def retry_of(request: dict[str, Any], name: str, request_id: str | None) -> dict[str, Any]:
    """The same spec with failuresOf, in the same queue; a requestID of its own, or none."""
    spec = copy.deepcopy(request["spec"])
    spec.pop("requestID", None)
    spec.pop("suspend", None)
    own = {"requestID": request_id} if request_id else {}
    labels = request["metadata"].get("labels") or {}
    queue = {key: value for key, value in labels.items() if key == names.LABEL_QUEUE}
    source = {"failuresOf": {"name": request["metadata"]["name"]}}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, **({"labels": queue} if queue else {})},
        "spec": {**own, **spec, "source": source},
    }
