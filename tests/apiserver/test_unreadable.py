"""Operator and CRD of different versions: it is said what cannot be read, and it heals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from imageprocessing_contract.crd import crd_yaml

from tests.apiserver import kubelet
from tests.apiserver.kube import Object, eventually
from tests.apiserver.shop import Shop
from tests.cluster.cluster import Cluster


class Schema:
    """The CRD's schema in the cluster."""

    def __init__(self, cluster: Cluster, file: Path) -> None:
        self._cluster, self._file = cluster, file
        self.properties: Object = {}
        self.restore()

    def restore(self) -> None:
        """As this operator has it."""
        self._crd = yaml.safe_load(crd_yaml())
        schema = self._crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        self.properties = schema["properties"]
        self.install()

    def install(self) -> None:
        """As `properties` are."""
        self._file.write_text(json.dumps(self._crd))
        self._cluster.install_crd(self._file)


@pytest.fixture
def schema(api_cluster: Cluster, tmp_path: Path) -> Iterator[Schema]:
    found = Schema(api_cluster, tmp_path / "crd.json")
    yield found
    found.restore()


def spec_of(shop: Shop, name: str) -> Object:
    """As the API server serves it."""
    found: Object = shop.kube.get("ipr", name)["spec"]
    return found


def served(shop: Shop, name: str, *, retries: bool) -> None:
    """Waits until the API server goes by the CRD that has this field, or lacks it."""
    eventually(
        lambda: ("retries" in spec_of(shop, name)["download"]) == retries,
        f"download.retries is served: {retries}",
    )


def wait_unreadable(shop: Shop, name: str, field: str) -> None:
    shop.wait_said(name, "Stalled", "True", "SpecUnreadable")
    assert f"cannot read {field}:" in shop.condition(name, "Stalled")["message"]
    said = shop.said(name)
    assert said["Ready"] == ("False", "SpecUnreadable")
    assert said["Finished"] == ("False", "NotFinished")
    status = shop.kube.get("ipr", name)
    assert status["status"]["observedGeneration"] == status["metadata"]["generation"]


def test_a_spec_of_another_version(shop: Shop, schema: Schema) -> None:
    """Of a CRD that lacks a field, and of one that allows a value that is not known."""
    for name in ("running", "seen"):
        shop.apply(name)
        shop.wait_said(name, "Ready", "Unknown", "Planning")
    spec = schema.properties["spec"]["properties"]
    spec["compression"]["properties"]["format"]["enum"].append("JXL")
    schema.install()
    newer = {"format": "JXL", "quality": 50}
    eventually(lambda: try_apply(shop, "newer", compression=newer), "the format is allowed")
    wait_unreadable(shop, "newer", "spec.compression.format")
    shop.wait_events("newer", "Unreadable")
    shop.apply("again", source={"failuresOf": {"name": "newer"}})
    shop.wait_said("again", "Stalled", "True", "SourceRequestNotUsable")

    # What began before goes on while it cannot be read.
    shop.wait_events("seen", "Started")
    shop.operator.stop()
    del spec["download"]["properties"]["retries"]
    schema.install()
    served(shop, "running", retries=False)
    shop.apply("older")
    shop.operator.start()
    for name in ("running", "seen", "older"):
        wait_unreadable(shop, name, "spec.download")
    shop.wait_events("seen", "Started", "Unreadable")
    shop.finish_step("running", "plan", kubelet.whole(3))
    versions = {name: version(shop, name) for name in ("newer", "older", "seen")}
    shop.operator.kill()
    shop.operator.start()
    shop.apply("later")
    wait_unreadable(shop, "later", "spec.download")
    assert {name: version(shop, name) for name in versions} == versions, "it is said once"

    # The operator lists anew when the CRD has changed, for that ends its watches.
    schema.restore()
    served(shop, "running", retries=True)
    shop.wait_finished("running", "Succeeded")
    for name in ("seen", "older", "later"):
        shop.wait_said(name, "Stalled", "False", "Progressing")
        shop.finish_step(name, "plan", kubelet.whole(3))
    for name in ("running", "seen", "older", "later"):
        shop.wait_status(name, settled=True)
        assert shop.steps(name) == ["plan-1"]

    # It was stored before the CRD refused it: its status can be written all the same.
    wait_unreadable(shop, "newer", "spec.compression.format")
    shop.kube.patch("ipr", "newer", {"status": {"conditions": None}}, "status")
    wait_unreadable(shop, "newer", "spec.compression.format")
    assert shop.jobs("newer") == []


def try_apply(shop: Shop, name: str, **spec: Any) -> bool:
    """Whether the API server takes this request."""
    found = shop.find("ipr", name)
    if found is None:
        response = shop.kube.ask("POST", shop.kube.path("ipr"), json=shop.manifest(name, **spec))
        return response.is_success
    return True


def version(shop: Shop, name: str) -> str:
    found: str = shop.kube.get("ipr", name)["metadata"]["resourceVersion"]
    return found


UNREADABLE = {
    "startTime": "soon",
    "shards": {"total": "many", "size": 3},
    "steps": [],
    "conditions": [{"type": "Ready"}, {"type": "Finished", "status": 1}],
}


def wait_healed(shop: Shop, name: str) -> None:
    """Nothing of the edit is left."""
    eventually(lambda: shop.status(name)["startTime"] != "soon", f"startTime of {name} is a time")
    assert shop.said(name)["Ready"] == ("Unknown", "Planning")
    status = shop.status(name)
    assert "shards" not in status
    assert status["steps"] == {"plan": 1}


def test_a_status_of_another_version(shop: Shop, schema: Schema) -> None:
    """What cannot be read counts as absent, and is written anew."""
    status = schema.properties["status"]["properties"]
    for field in UNREADABLE:
        status[field] = {"x-kubernetes-preserve-unknown-fields": True}
    schema.install()
    for name in ("edited", "edited-while-down"):
        shop.apply(name)
        shop.wait_said(name, "Ready", "Unknown", "Planning")
        shop.job(name, "plan")
    edit = {"status": UNREADABLE}
    eventually(
        lambda: (
            shop.kube.ask(
                "PATCH",
                shop.kube.path("ipr", "edited", "status"),
                json=edit,
                headers={"Content-Type": "application/merge-patch+json"},
            ).is_success
        ),
        "the CRD takes everything",
    )
    wait_healed(shop, "edited")
    shop.operator.stop()
    shop.kube.patch("ipr", "edited-while-down", edit, "status")
    schema.restore()
    shop.operator.start()
    for name in ("edited", "edited-while-down"):
        wait_healed(shop, name)
        shop.finish_step(name, "plan", kubelet.whole(3))
        shop.wait_finished(name, "Succeeded")
        assert shop.steps(name) == ["plan-1"]
