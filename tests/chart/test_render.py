"""What Helm makes of the chart."""

from __future__ import annotations

import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from imageprocessing_contract.guard import _TABLE
from imageprocessing_operator.settings import Settings, read_settings
from ssrfguard import Reach

from tests import helm
from tests.chart import golden

ROOT = helm.CHART.parents[1]


def test_lint() -> None:
    """Helm finds nothing to say."""
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(helm.CHART))


def test_crd_copy() -> None:
    """`make chart` writes it anew."""
    crd = ROOT / "crds" / "imageprocessing.dev_imageprocessingrequests.yaml"
    assert (helm.CHART / "files" / "crd.yaml").read_text() == crd.read_text()


@pytest.mark.parametrize("case", golden.CASES)
def test_golden(case: str) -> None:
    """`make chart` writes them anew: read what changed before it is committed."""
    assert golden.render(case) == golden.file_of(case).read_text()


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ([], {"ClusterRole": 1, "ClusterRoleBinding": 1, "CustomResourceDefinition": 1}),
        (["--set", "namespaces={a,b}"], {"Role": 2, "RoleBinding": 2, "ClusterRole": 0}),
        (["--set", "crds.enabled=false"], {"CustomResourceDefinition": 0}),
        (["--set", "worker.serviceAccount.namespaces={a,b}"], {"ServiceAccount": 3}),
        (["--set", "worker.serviceAccount.create=false"], {"ServiceAccount": 1}),
        (["--set", "metrics.service=false"], {"Service": 0}),
        (
            ["--set", "metrics.service=false,metrics.serviceMonitor.enabled=true"],
            {"Service": 1, "ServiceMonitor": 1},
        ),
    ],
)
def test_values(values: list[str], kinds: dict[str, int]) -> None:
    """Each value changes what is installed."""
    crds = not any("crds" in value for value in values)
    found = [o["kind"] for o in helm.objects(helm.render(*values, crds=crds))]
    assert {kind: found.count(kind) for kind in kinds} == kinds


def test_network_policies_know_what_the_guard_refuses() -> None:
    """Of what they let through as public, each block in its table is excepted."""
    values = ["--set", "networkPolicy.enabled=true,networkPolicy.apiServerNetworks={10.0.0.1/32}"]
    policies = [o for o in helm.objects(helm.render(*values)) if o["kind"] == "NetworkPolicy"]
    blocks = [
        peer["ipBlock"]
        for policy in policies
        for rule in policy["spec"]["egress"]
        for peer in rule.get("to", [])
        if peer["ipBlock"]["cidr"] in ("0.0.0.0/0", "2000::/3")
    ]
    assert len(blocks) == 2 * len(policies) > 0
    for block in blocks:
        whole = ip_network(block["cidr"])
        excepted = [ip_network(text) for text in block["except"]]
        denied = [row.network for row in _TABLE.blocks if row.reach is not Reach.PERMITTED]
        inside = [n for n in denied if n.version == whole.version and n.subnet_of(whole)]  # type: ignore[arg-type]
        assert len(inside) > 3
        assert [n for n in inside if not any(n.subnet_of(e) for e in excepted)] == []  # type: ignore[arg-type]


def test_crd_is_kept() -> None:
    """`helm uninstall` must not delete every request of the cluster."""
    crds = [o for o in helm.objects(helm.render(crds=True)) if "definition" in o["kind"].lower()]
    assert [crd["metadata"]["annotations"]["helm.sh/resource-policy"] for crd in crds] == ["keep"]


def test_a_list_of_namespaces_needs_no_cluster_role() -> None:
    kinds = {o["kind"] for o in helm.objects(helm.render("--set", "namespaces={a}"))}
    assert not {kind for kind in kinds if kind.startswith("Cluster")}


@pytest.mark.parametrize("case", golden.CASES)
def test_the_operator_reads_what_the_chart_sets(case: str) -> None:
    """Every setting but its port has a value, and every value a setting."""
    (deployment,) = (
        o for o in helm.objects(golden.file_of(case).read_text()) if o["kind"] == "Deployment"
    )
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {e["name"]: e["value"] for e in container["env"]}
    ours = {name for name in environment if name.startswith("IMAGEPROCESSING_")}
    assert ours == {f"IMAGEPROCESSING_{name.upper()}" for name in Settings.__struct_fields__} - {
        "IMAGEPROCESSING_HTTP_PORT"
    }
    settings = read_settings(environment)
    if case == "everything":
        assert settings.worker_max_parallelism == 20
        assert settings.namespaces == ["shop", "outlet"]


def defaults() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((helm.CHART / "values.yaml").read_text())
    return values


def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((helm.CHART / "values.schema.json").read_text())
    return found


def test_schema_and_values_agree() -> None:
    """Each value that the schema knows is in values.yaml, with its default."""

    def missing(rules: dict[str, Any], values: dict[str, Any], path: str) -> list[str]:
        lost = []
        for name, rule in rules.get("properties", {}).items():
            if name == "global":
                continue
            if name not in values:
                lost.append(f"{path}{name}")
            elif "properties" in rule and values[name]:
                lost += missing(rule, values[name], f"{path}{name}.")
        return lost

    jsonschema.Draft7Validator.check_schema(schema())
    jsonschema.Draft7Validator(schema()).validate(defaults())
    assert missing(schema(), defaults(), "") == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("namespace={a}", "namespace"),
        ("namespaces={A}", "namespaces"),
        ("worker.maxParallelism=-1", "maxParallelism"),
        ("worker.maxParallelism=many", "maxParallelism"),
        ("worker.maxResources.gpu=1", "gpu"),
        ("worker.maxResources.memory=lots", "memory"),
        ("worker.allowedNetworks={10.0.0.1}", "allowedNetworks"),
        ("operator.image.digest=sha256:1", "digest"),
        ("operator.image.pullPolicy=Sometimes", "pullPolicy"),
        ("worker.resources.limit.memory=1Gi", "limit"),
        ("imagePullSecrets={registry}", "imagePullSecrets"),
    ],
)
def test_what_the_schema_refuses(value: str, said: str) -> None:
    """A slip in a value is an error and no silence."""
    with pytest.raises(helm.HelmError, match=said):
        helm.render("--set", value)


def test_values_are_used() -> None:
    """Every leaf of values.yaml occurs in a template."""
    templates = "".join(f.read_text() for f in Path(helm.CHART, "templates").iterdir())

    def leaves(values: dict[str, Any]) -> list[str]:
        return [
            leaf
            for name, value in values.items()
            for leaf in (leaves(value) if isinstance(value, dict) and value else [name])
        ]

    words = set(re.findall(r"\w+", templates))
    whole = {"requests", "limits", "grafana_dashboard", "cpu", "memory"}  # passed on whole
    assert set(leaves(defaults())) - words - whole == set()
