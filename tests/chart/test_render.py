"""What Helm makes of the chart."""

from __future__ import annotations

import pytest
import yaml

from tests.e2e.conftest import CHART, Helm


def test_lint(helm: Helm) -> None:
    """Helm finds nothing to say."""
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ([], {"ClusterRole": 1, "ClusterRoleBinding": 1, "CustomResourceDefinition": 1}),
        (["--set", "namespaces={a,b}"], {"Role": 2, "RoleBinding": 2, "ClusterRole": 0}),
        (["--set", "crds.enabled=false"], {"CustomResourceDefinition": 0}),
        (["--set", "worker.serviceAccount.namespaces={a,b}"], {"ServiceAccount": 3}),
        (["--set", "worker.serviceAccount.create=false"], {"ServiceAccount": 1}),
    ],
)
def test_values(helm: Helm, values: list[str], kinds: dict[str, int]) -> None:
    """Each value changes what is installed."""
    text = helm("template", "release", str(CHART), "--kube-version", "1.34.4", *values)
    found = [document["kind"] for document in yaml.safe_load_all(text) if document]
    assert {kind: found.count(kind) for kind in kinds} == kinds


def test_crd_is_kept(helm: Helm) -> None:
    """`helm uninstall` must not delete every request of the cluster."""
    text = helm("template", "release", str(CHART), "--kube-version", "1.34.4")
    crd = next(d for d in yaml.safe_load_all(text) if d["kind"] == "CustomResourceDefinition")
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
