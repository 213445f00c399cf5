"""Objects as the API server stores them."""

from __future__ import annotations

from typing import Any

from imageprocessing_cli.manifest import with_defaults
from imageprocessing_contract import names


def stored_spec(**spec: Any) -> dict[str, Any]:
    """The spec with the defaults of the CRD."""
    manifest = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "stored"},
        "spec": spec,
    }
    filled: dict[str, Any] = with_defaults(manifest)["spec"]
    return filled
