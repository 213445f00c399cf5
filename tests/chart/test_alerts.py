"""Alerts and dashboard, by Prometheus' own promtool and the metrics that the operator has."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from imageprocessing_contract.reasons import Reason
from imageprocessing_operator.metrics import Metrics

from tests.cluster import build
from tests.conftest import needs
from tests.helm import CHART

FILES = CHART / "files"
ALERTS: dict[str, Any] = yaml.safe_load((FILES / "alerts.yaml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARD: dict[str, Any] = json.loads((FILES / "dashboard.json").read_text())
TARGETS = [t["expr"] for panel in DASHBOARD["panels"] for t in panel["targets"]]
OPERATIONS = CHART.parents[1] / "docs" / "operations.md"


@pytest.fixture(scope="module")
def promtool() -> Path:
    found = build.promtool()
    needs(None if found else "not installed: promtool")
    assert found is not None
    return found


def run(promtool: Path, *args: str) -> str:
    done = subprocess.run([str(promtool), *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_and_panels_are_valid(promtool: Path, tmp_path: Path) -> None:
    panels = [
        {"record": f"panel:{n}", "expr": expr.replace("$__rate_interval", "5m")}
        for n, expr in enumerate(TARGETS)
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": panels}]}))
    said = run(promtool, "check", "rules", "--lint-fatal", str(FILES / "alerts.yaml"), str(file))
    assert f"SUCCESS: {len(RULES)} rules found" in said
    assert f"SUCCESS: {len(panels)} rules found" in said


FIRES = {
    "ImageProcessingWatchOld": [('imageprocessing_watch_age_seconds{path="/jobs"}', "0+30x60")],
    "ImageProcessingQueueOld": [("imageprocessing_queue_age_seconds", "0+10x60")],
    "ImageProcessingReconcileBug": [
        ('imageprocessing_reconcile_errors_total{cause="bug"}', "0 0 0 0 1+0x60"),
    ],
    "ImageProcessingAPIErrors": [
        ('imageprocessing_api_calls_total{verb="GET",code="200"}', "0+8x60"),
        ('imageprocessing_api_calls_total{verb="GET",code="503"}', "0+40x60"),
    ],
    "ImageProcessingRequestsBlocked": [('imageprocessing_requests{state="Unschedulable"}', "2x60")],
    "ImageProcessingWebhooksFail": [
        ('imageprocessing_webhook_attempts_total{outcome="delivered"}', "0+1x60"),
        ('imageprocessing_webhook_attempts_total{outcome="failed"}', "0+2x60"),
    ],
    "ImageProcessingOperatorAbsent": [("up", "0x60")],
}
"""What each alert is for; a sample a minute for an hour."""
CALM = [
    ("imageprocessing_queue_depth", "3x60"),
    ("imageprocessing_queue_age_seconds", "2x60"),
    ('imageprocessing_watch_age_seconds{path="/jobs"}', "299x60"),
    ('imageprocessing_reconcile_errors_total{cause="api"}', "0+1x60"),
    ('imageprocessing_api_calls_total{verb="GET",code="200"}', "0+95x60"),
    ('imageprocessing_api_calls_total{verb="GET",code="409"}', "0+50x60"),
    ('imageprocessing_requests{state="Processing"}', "20x60"),
    ('imageprocessing_webhook_attempts_total{outcome="delivered"}', "0+3x60"),
    ('imageprocessing_webhook_attempts_total{outcome="failed"}', "0+1x60"),
]


def test_alerts_fire_and_keep_quiet(promtool: Path, tmp_path: Path) -> None:
    """Each for its own cause alone, within 45 minutes, and none on a calm day."""
    names = [rule["alert"] for rule in RULES]
    assert set(FIRES) == set(names)
    quiet = dict(CALM)
    cases = []
    for alert, series in {**FIRES, "": CALM}.items():
        given = {**(quiet if alert != "ImageProcessingOperatorAbsent" else {}), **dict(series)}
        expr = 'count by (alertname) (ALERTS{alertstate="firing"})'
        fired = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else []
        # An increase is seen while it is in the alert's window.
        at = "10m" if alert == "ImageProcessingReconcileBug" else "45m"
        cases.append(
            {
                "interval": "1m",
                "name": alert or "calm",
                "input_series": [{"series": name, "values": v} for name, v in given.items()],
                "promql_expr_test": [{"expr": expr, "eval_time": at, "exp_samples": fired}],
            }
        )
    test = {
        "rule_files": [str(FILES / "alerts.yaml")],
        "evaluation_interval": "1m",
        "tests": cases,
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    run(promtool, "test", "rules", str(file))


def test_metrics_are_the_operators() -> None:
    """No alert or panel asks for a metric that the operator does not have."""
    metrics = Metrics()
    metrics.ask(
        requests=tuple,
        depth=lambda: 0,
        age=lambda: 0,
        watches=lambda: {"/jobs": 1},
        tasks=lambda: 1,
    )
    known = {
        name + suffix
        for family in metrics.registry.collect()
        for name in [family.name]
        for suffix in ("", "_total", "_bucket", "_sum", "_count")
    }
    asked = re.findall(r"\b((?:imageprocessing|process)_\w+)", str(RULES) + str(TARGETS))
    assert len(asked) > 15
    assert set(asked) - known == set()
    panels = " ".join(TARGETS)
    shown = [f.name for f in metrics.registry.collect() if f.name.startswith("imageprocessing_")]
    assert [name for name in shown if name not in panels] == []


def test_reasons_and_runbooks_exist() -> None:
    (blocked,) = (rule for rule in RULES if rule["alert"] == "ImageProcessingRequestsBlocked")
    (states,) = re.findall(r'state=~"([^"]+)"', blocked["expr"])
    assert set(states.split("|")) <= set(Reason)
    headings = re.findall(r"^##+ (.+)$", OPERATIONS.read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
    for rule in RULES:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "https://imageprocessing.dev/operations/"
        assert anchor in anchors, rule["alert"]
        assert rule["alert"] in OPERATIONS.read_text()
