"""A claim is written by one Pod and read by the test."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.claims import make_claim, read_claim
from tests.cluster.cluster import Cluster
from tests.cluster.jobs import WORKER, job


def test_a_pod_writes_what_the_test_reads(
    node_cluster: Cluster, images: None, tmp_path: Path
) -> None:
    write = "import pathlib; pathlib.Path('/claim/file').write_text('text')"
    with node_cluster.namespace() as namespace:
        make_claim(node_cluster, namespace, "data")
        manifest = job("write", namespace, WORKER, write)
        pod = manifest["spec"]["template"]["spec"]
        pod["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
        pod["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/claim"}]
        node_cluster.apply(manifest)
        node_cluster.wait(f"job/write -n {namespace} --for=condition=Complete")
        files = read_claim(node_cluster, namespace, "data", tmp_path)
    assert (files / "file").read_text() == "text"
