"""A kubeconfig for a server of a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
TOKEN: Object = {"token": "secret"}


def write_kubeconfig(folder: Path, address: str, user: Object = TOKEN) -> Path:
    """Its context is `here`, with the namespace shop; `there` has another one, `bare` none."""
    file = folder / "kubeconfig"
    context = {"cluster": "c", "user": "u"}
    found = {
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": address}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "here", "context": {**context, "namespace": "shop"}},
            {"name": "there", "context": {**context, "namespace": "other"}},
            {"name": "bare", "context": context},
        ],
    }
    file.write_text(yaml.safe_dump(found))
    return file
