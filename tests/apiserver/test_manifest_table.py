"""Runs the table of manifests through a real API server, which has the last word."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any

import kubernetes
import pytest
from imageprocessing_cli.manifest import with_defaults
from imageprocessing_cli.yaml_documents import load_documents

from tests.manifests.table import MINIMAL, Case, all_cases

pytestmark = pytest.mark.cluster

CASES = all_cases()
RESOURCE = {
    "group": "imageprocessing.dev",
    "version": "v1alpha1",
    "plural": "imageprocessingrequests",
}
STRICT: dict[str, Any] = {"field_validation": "Strict"}
DRY: dict[str, Any] = {**STRICT, "dry_run": "All"}


@pytest.fixture(scope="module")
def namespace(api_cluster: Any) -> Iterator[str]:
    with api_cluster.namespace("manifests") as name:
        yield name


@pytest.fixture(scope="module")
def requests(api_cluster: Any, namespace: str) -> Requests:
    return Requests(str(api_cluster.kubeconfig), namespace)


class Requests:
    """The requests of one namespace; one connection serves all cases in seconds."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        client = kubernetes.config.new_client_from_config(kubeconfig)
        self.api = kubernetes.client.CustomObjectsApi(client)
        self.where = {**RESOURCE, "namespace": namespace}
        self.numbers = itertools.count()

    def create(self, manifest: dict[str, Any], **options: Any) -> dict[str, Any]:
        made: dict[str, Any] = self.api.create_namespaced_custom_object(
            **self.where, body=manifest, **options
        )
        return made

    def replace(self, manifest: dict[str, Any], **options: Any) -> dict[str, Any]:
        name = manifest["metadata"]["name"]
        made: dict[str, Any] = self.api.replace_namespaced_custom_object(
            **self.where, name=name, body=manifest, **options
        )
        return made

    def write_status(self, name: str, status: dict[str, Any], **options: Any) -> dict[str, Any]:
        made: dict[str, Any] = self.api.patch_namespaced_custom_object_status(
            **self.where, name=name, body={"status": status}, **options
        )
        return made

    def store(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Creates a request under a new name, with its status."""
        manifest = copy.deepcopy(manifest)
        manifest["metadata"]["name"] = f"stored-{next(self.numbers)}"
        stored = self.create(manifest, **STRICT)
        if status := manifest.get("status"):
            stored = self.write_status(stored["metadata"]["name"], status)
        return stored

    def put(self, case: Case) -> dict[str, Any]:
        """Tries a case, without leaving its manifest behind."""
        if case.old is None:
            return self.create(case.manifest, **DRY)
        stored = self.store(case.old)["metadata"]
        identity = {"name": stored["name"], "resourceVersion": stored["resourceVersion"]}
        metadata = {**case.manifest["metadata"], **identity}
        return self.replace({**case.manifest, "metadata": metadata}, **DRY)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(requests: Requests, case: Case) -> None:
    if case.accepted:
        assert requests.put(case)["spec"] == with_defaults(case.manifest)["spec"]
        return

    with pytest.raises(kubernetes.client.ApiException) as refused:
        requests.put(case)

    answer = json.loads(refused.value.body)
    causes = answer.get("details", {}).get("causes")
    # A body that cannot be read at all (400) comes without a list of causes.
    if causes is None:
        assert answer["code"] == 400
        assert case.message in answer["message"]
    else:
        assert any(
            cause.get("field") == case.field and case.message in cause["message"]
            for cause in causes
        ), causes


def test_the_status_begins_before_the_first_generation(requests: Requests) -> None:
    assert requests.create(MINIMAL, **DRY)["status"] == {"observedGeneration": -1}


TIME = "2026-01-01T00:00:00Z"
STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "progress": {
        "since": TIME,
        "processedBefore": 0,
        "imagesPerMinute": 660,
        "timeLeft": "12m",
    },
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": TIME,
            "reason": "Succeeded",
            "message": "",
        },
        {
            "type": "Notified",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": TIME,
            "reason": "Delivered",
            "message": "",
        },
    ],
    "settled": True,
    "requestID": "spring-2026",
    "specHash": "0123456789abcdef",
    "startTime": TIME,
    "completionTime": TIME,
    "suspendTime": TIME,
    "suspendedSeconds": 5,
    "catalogue": {
        "rows": 4,
        "images": 12,
        "invalidRows": 1,
        "samples": [{"line": 3, "reason": "BrokenURL", "message": "no host"}] * 10,
    },
    "shards": {"total": 2, "active": 0, "succeeded": 1, "failed": 1},
    "images": {"total": 12, "processed": 11, "succeeded": 10, "failed": 1, "unchanged": 2},
    "bytes": {"original": 1 << 40, "compressed": 1 << 39},
    "results": {"csvURL": "gs://a/b.csv", "failedURL": "gs://a/f.csv", "reportURL": "gs://a/r"},
    "failures": [{"line": 2, "url": "http://a/", "reason": "NotFound", "message": "404"}] * 10,
    "steps": {"plan": 1, "shards": 2, "finalize": 1},
    "webhook": {
        "eventID": "msg_1",
        "attempts": 2,
        "lastStatusCode": 200,
        "lastAttemptTime": TIME,
        "nextAttemptTime": TIME,
        "deliveredTime": TIME,
    },
}


def test_a_whole_status_is_kept(requests: Requests) -> None:
    name = requests.store(MINIMAL)["metadata"]["name"]

    assert requests.write_status(name, STATUS, **STRICT)["status"] == STATUS


@pytest.mark.parametrize(
    ("status", "field"),
    [
        ({"settled": "true"}, "status.settled"),
        ({"startTime": "yesterday"}, "status.startTime"),
        ({"catalogue": {"samples": [{"line": 1}] * 11}}, "status.catalogue.samples"),
        ({"failures": [{"line": 1}] * 11}, "status.failures"),
        ({"images": {"processed": -1}}, "status.images.processed"),
        ({"conditions": [{"type": "Ready"}]}, "status.conditions[0].reason"),
        ({"conditions": STATUS["conditions"][:1] * 2}, "status.conditions[1]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_status_of_another_form_is_refused(
    requests: Requests, status: dict[str, Any], field: str
) -> None:
    name = requests.store(MINIMAL)["metadata"]["name"]

    with pytest.raises(kubernetes.client.ApiException) as refused:
        requests.write_status(name, status, **STRICT)

    causes = json.loads(refused.value.body)["details"]["causes"]
    assert field in {cause["field"] for cause in causes}


def test_printer_columns_and_the_short_name(
    api_cluster: Any, requests: Requests, namespace: str
) -> None:
    name = requests.store({**MINIMAL, "status": STATUS})["metadata"]["name"]

    narrow = api_cluster.kubectl("get", "ipr", name, "-n", namespace).splitlines()
    wide = api_cluster.kubectl("get", "ipr", name, "-n", namespace, "-o", "wide").splitlines()

    assert narrow[0].split() == ["NAME", "STATUS", "TOTAL", "PROCESSED", "FAILED", "LEFT", "AGE"]
    assert narrow[1].split()[:5] == [name, "Succeeded", "12", "11", "1"]
    more = ["RATE", "SHARDS", "NOTIFIED", "CSV"]
    assert wide[0].split() == [*narrow[0].split()[:6], *more, "AGE"]
    assert wide[1].split()[5:10] == ["12m", "660", "2", "Delivered", "gs://a/b.csv"]


def test_settled_requests_can_be_left_out(
    api_cluster: Any, requests: Requests, namespace: str
) -> None:
    done = requests.store({**MINIMAL, "status": {"settled": True}})["metadata"]["name"]
    running = requests.store(MINIMAL)["metadata"]["name"]

    listed = api_cluster.kubectl(
        "get", "ipr", "-n", namespace, "-o", "name", "--field-selector", "status.settled!=true"
    )

    assert f"/{running}\n" in listed
    assert f"/{done}\n" not in listed


@pytest.mark.parametrize("field", ["spec", "spec.download", "spec.worker.tolerations", "status"])
def test_kubectl_explain(api_cluster: Any, field: str) -> None:
    explained = api_cluster.kubectl("explain", f"ipr.{field}")

    assert "DESCRIPTION:" in explained
    assert "FIELDS:" in explained
    assert "<no description>" not in explained


YAML = """\
apiVersion: imageprocessing.dev/v1alpha1
kind: ImageProcessingRequest
metadata:
  name: scalars
  namespace: default
  annotations: {3: a, yes: b, 2026-01-01: c, 1:30: d}
spec:
  words: [y, n, yes, On, off, True, "yes", 'no', ~, null, "", 1:30, 190:20:30, 2026-01-01, 2026-01-01T10:00:00Z]
  numbers: [1, 0755, 0o17, 0x1F, 0b11, 1_000, -5, +5, 1.25e1, .5, -.5, 100%, 50Mi, 0, 00, 08.5, 0o8, -0x1f]
  block: |
    a,b
  map: &map {d: 1, 2.5: e, true: x}
  merged: {<<: *map, d: 2}
"""


def test_yaml_means_what_it_means_to_kubectl(api_cluster: Any) -> None:
    arguments = ["create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-"]

    read = json.loads(api_cluster.kubectl(*arguments, stdin=YAML))

    assert load_documents(YAML) == [read]
