"""The pure parts of ipr's commands."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from imageprocessing_cli.advice import advice
from imageprocessing_cli.catalogue_check import ANY_ADDRESS, check_catalogue
from imageprocessing_cli.describe import redeliver
from imageprocessing_cli.errors import CommandError, ServerError, UsageError
from imageprocessing_cli.main import main
from imageprocessing_cli.manifest import validate, with_defaults
from imageprocessing_cli.manifest_options import build_request, default_name
from imageprocessing_cli.picking import pick_pod
from imageprocessing_cli.placing import MAX_CONFIG_MAP, from_url, place
from imageprocessing_cli.printing import print_objects, table
from imageprocessing_cli.retrying import next_name, retry_of
from imageprocessing_contract import names
from imageprocessing_contract.reasons import ImageReason, Reason, RowReason
from imageprocessing_contract.request import parse_spec

NONE: dict[str, Any] = dict.fromkeys(
    ("request_id", "image_format", "quality", "max_width", "widths", "invalid_rows",
     "parallelism",
     "bucket", "claim", "prefix", "webhook_url", "webhook_secret")
)  # fmt: skip
COMMANDS = main.list_commands(click.Context(main))
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "ipr.md").read_text()


def ipr(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imageprocessing_cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example_and_exit_codes(command: str) -> None:
    shown = CliRunner().invoke(main, [command, "--help"], prog_name="ipr")
    assert shown.exit_code == 0
    assert "Exit code: 0 " in shown.output
    example = f"ipr {command} " if command != "completion" else "<(ipr completion bash)"
    assert example in shown.output.partition("\n")[2]


@pytest.mark.parametrize("line", re.findall(r"^(?:\$ )?ipr (.+?)(?: +#.*)?$", PAGE, re.MULTILINE))
def test_the_page_shows_commands_that_there_are(line: str) -> None:
    command, *arguments = shlex.split(line)
    found = main.get_command(click.Context(main), command)
    assert found
    found.make_context(command, arguments)


@pytest.mark.parametrize(("shell", "word"), [("bash", "1"), ("zsh", "1"), ("fish", "sta")])
def test_shells_complete_its_commands(shell: str, word: str) -> None:
    script = CliRunner().invoke(main, ["completion", shell], prog_name="ipr").output
    assert "_IPR_COMPLETE" in script
    asked = {"_IPR_COMPLETE": f"{shell}_complete", "COMP_WORDS": "ipr sta", "COMP_CWORD": word}
    offered = CliRunner().invoke(main, [], prog_name="ipr", env=asked)
    assert "status" in offered.output


@pytest.mark.parametrize("reason", [*Reason, *ImageReason, *RowReason])
def test_there_is_advice_for_every_reason(reason: str) -> None:
    """In words that need no row above them."""
    found = advice()[reason]
    assert found.meaning
    assert "as above" not in found.what_to_do
    assert "](" not in found.meaning + found.what_to_do


@pytest.mark.parametrize(
    ("catalogue", "name"),
    [
        ("products.csv", "products"),
        ("in/Spring 2026 (new).csv", "spring-2026-new"),
        ("https://shop.example/export.csv?token=1", "export"),
        ("gs://shop/catalogues/autumn.csv", "autumn"),
    ],
)
def test_a_request_is_named_after_its_catalogue(catalogue: str, name: str) -> None:
    assert default_name(catalogue) == name


def test_a_catalogue_without_a_name_asks_for_one() -> None:
    with pytest.raises(UsageError, match=r"add one: ipr submit \?\.csv NAME"):
        default_name("?.csv")


@pytest.mark.parametrize(
    ("name", "after"), [("s", "s-retry"), ("s-retry", "s-retry-2"), ("s-retry-9", "s-retry-10")]
)
def test_retries_are_counted(name: str, after: str) -> None:
    assert next_name(name) == after


def test_widths_are_a_list(tmp_path: Path) -> None:
    catalogue = tmp_path / "c.csv"
    catalogue.write_text("Serial Number,Product Name,Input Image Urls\n1,a,http://a.example/1\n")
    given = ["submit", str(catalogue), "--claim", "c", "--dry-run", "-o", "json", "--widths"]
    made = CliRunner().invoke(main, [*given, "320,640"])
    assert '"widths": [\n' in made.output
    assert "640" in made.output
    refused = CliRunner().invoke(main, [*given, "320;640"])
    assert refused.exit_code == 2
    assert (
        "'320;640': numbers of pixels, separated by commas, such as 320,640,1280" in refused.output
    )


@pytest.mark.parametrize("kind", ["of its encoding", "of its quotes"])
def test_a_catalogue_that_no_row_can_be_had_of_is_not_sent(tmp_path: Path, kind: str) -> None:
    """--invalid-rows Skip leaves out rows, and not the rest of a file."""
    catalogue = tmp_path / "c.csv"
    bad = (
        b"2,\xff,http://a.example/2\n"
        if kind == "of its encoding"
        else b'2,"b,http://a.example/2\n'
    )
    good = b"Serial Number,Product Name,Input Image Urls\n1,a,http://a.example/1\n"
    catalogue.write_bytes(good + bad)
    given = ["submit", str(catalogue), "--claim", "c", "--dry-run", "--invalid-rows", "Skip"]
    made = CliRunner().invoke(main, given)
    assert made.exit_code == 2
    assert f"{catalogue} cannot be used\n" in made.output


def test_a_template_says_the_namespace_of_all(tmp_path: Path) -> None:
    """Also of the ConfigMap; -n wins."""
    catalogue, template = tmp_path / "c.csv", tmp_path / "r.yaml"
    catalogue.write_text("Serial Number,Product Name,Input Image Urls\n1,a,http://a.example/1\n")
    template.write_text(
        f"apiVersion: {names.API_VERSION}\nkind: {names.KIND}\nmetadata: {{name: x, namespace: shop}}\n"
    )
    given = ["submit", str(catalogue), "--from", str(template), "--claim", "c", "--dry-run"]
    for more, expected in (([], "shop"), (["-n", "other"], "other")):
        made = CliRunner().invoke(main, [*given, *more])
        objects = list(yaml.safe_load_all(made.output))
        assert [found["metadata"]["namespace"] for found in objects] == [expected] * 2


@pytest.mark.parametrize(
    "text", ["1e3", "12E45", "1.5e3", ".5", "5.", "0x1F", "012", "1_000", "on"]
)
def test_what_looks_like_a_number_is_quoted(text: str) -> None:
    """kubectl's reader knows more numbers than PyYAML; names are texts."""
    shown = io.StringIO()
    with redirect_stdout(shown):
        print_objects("yaml", {"metadata": {"name": text}, "spec": {"number": 5, "half": 1.5}})
    assert f"name: '{text}'\n" in shown.getvalue()
    assert "number: 5\n  half: 1.5\n" in shown.getvalue()


def test_a_retry_waits_in_the_same_queue() -> None:
    labels = {"kueue.x-k8s.io/queue-name": "night", "team": "shop"}
    meta = {"name": "spring", "uid": "1", "labels": labels}
    made = retry_of({"metadata": meta, "spec": {"suspend": True}}, "again", None)
    assert made["metadata"] == {
        "name": "again",
        "labels": {"kueue.x-k8s.io/queue-name": "night"},
    }


@pytest.mark.parametrize("command", ["watch", "logs", "status", "retry", "suspend", "results"])
def test_a_name_that_is_empty(command: str) -> None:
    """As of a script's variable that is not set."""
    refused = CliRunner().invoke(main, [command, ""])
    assert (refused.exit_code, refused.output) == (2, "error: NAME is empty\n")


def test_options_win_over_the_template() -> None:
    template = {
        "metadata": {"name": "other", "labels": {"team": "a"}, "uid": "1"},
        "spec": {
            "source": {"inline": "x"},
            "output": {"gcs": {"bucket": "old", "prefix": "p"}, "publicBaseURL": "https://cdn"},
            "compression": {"quality": 10, "format": "WebP"},
        },
    }
    made = build_request("new", template, NONE | {"quality": 20, "claim": "images", "prefix": "q"})
    assert made["metadata"] == {"name": "new", "labels": {"team": "a"}}
    assert made["spec"] == {
        "output": {
            "persistentVolumeClaim": {"claimName": "images", "path": "q"},
            "publicBaseURL": "https://cdn",
        },
        "compression": {"quality": 20, "format": "WebP"},
    }


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bucket": "b", "claim": "c"}, "results go to --bucket or to --claim, not to both"),
        ({"bucket": "b", "webhook_url": "https://x"}, "a webhook needs both"),
        ({"bucket": "b", "webhook_secret": "x"}, "a webhook needs both"),
        ({}, "where do the results go"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        build_request("new", {}, NONE | options)


def test_what_a_config_map_holds_goes_there() -> None:
    fits = place(b"x" * MAX_CONFIG_MAP, "spring", {"gcs": {"bucket": "b"}})
    assert fits.config_map
    assert fits.source["configMapKeyRef"]["name"] == fits.config_map["metadata"]["name"]
    data = b"x" * (MAX_CONFIG_MAP + 1)
    claim = {"persistentVolumeClaim": {"claimName": "c", "path": "/shop/"}}
    large = place(data, "spring", claim)
    assert large.config_map is None
    assert large.source["persistentVolumeClaim"] == {"claimName": "c", "path": large.upload}
    assert str(large.upload).startswith("shop/catalogues/")
    assert place(data, "other", claim) == large


def test_a_bucket_is_no_object() -> None:
    assert from_url("gs://b/a/b.csv") == {"gcs": {"bucket": "b", "object": "a/b.csv"}}
    with pytest.raises(UsageError, match="gs://b/ names no object"):
        from_url("gs://b/")


def test_addresses_are_the_clusters_to_refuse() -> None:
    """This machine does not know what the chart allows."""
    text = b"Serial Number,Product Name,Input Image Urls\n1,a,http://10.0.0.1/a.jpg\n"
    assert check_catalogue(iter([text]), ANY_ADDRESS).errors == []
    assert [e.reason for e in check_catalogue(iter([text])).errors] == ["InvalidURL"]


@pytest.mark.parametrize(("seconds", "other"), [(20, 21), (60, 59)])
def test_the_edit_that_delivers_again_is_valid(seconds: int, other: int) -> None:
    webhook = {"url": "https://x", "secretKeyRef": {"name": "s", "key": "k"}}
    manifest = with_defaults({
        "apiVersion": "imageprocessing.dev/v1alpha1",
        "kind": "ImageProcessingRequest",
        "metadata": {"name": "spring"},
        "spec": {
            "source": {"inline": "x"},
            "output": {"gcs": {"bucket": "bucket"}},
            "webhook": {**webhook, "timeoutSeconds": seconds},
        },
    })  # fmt: skip
    said = redeliver("spring", parse_spec(manifest["spec"]), " -n shop")
    assert said == (
        "kubectl patch ipr spring -n shop --type=merge "
        f'-p \'{{"spec": {{"webhook": {{"timeoutSeconds": {other}}}}}}}\''
    )
    manifest["spec"]["webhook"]["timeoutSeconds"] = other
    assert validate(manifest) == []


def job(step: str, condition: str | None = None) -> dict[str, Any]:
    conditions = [{"type": condition, "status": "True"}] if condition else []
    labels = {"imageprocessing.dev/step": step}
    return {
        "metadata": {"name": f"x-{step}", "labels": labels},
        "status": {"conditions": conditions},
    }


def pod(step: str, phase: str, made: str, index: int | None = None) -> dict[str, Any]:
    labels = {"batch.kubernetes.io/job-name": f"x-{step}"}
    if index is not None:
        labels["batch.kubernetes.io/job-completion-index"] = str(index)
    name = f"{step}-{phase}-{made}"
    meta = {"name": name, "labels": labels, "creationTimestamp": made}
    return {"metadata": meta, "status": {"phase": phase}}


PODS = [
    pod("plan", "Succeeded", "01"),
    pod("shards", "Succeeded", "02", 0),
    pod("shards", "Failed", "03", 1),
    pod("shards", "Failed", "05", 1),
    pod("shards", "Running", "06", 1),
    pod("finalize", "Succeeded", "07"),
]
DONE = [job("plan", "Complete"), job("shards", "Complete"), job("finalize", "Complete")]


def find(label: str, phase: str) -> list[dict[str, Any]]:
    """What the API server finds in PODS."""
    key, value = label.split("=")
    found = [pod for pod in PODS if pod["metadata"]["labels"].get(key) == value]
    return [pod for pod in found if phase in ("", pod["status"]["phase"])]


@pytest.mark.parametrize(
    ("jobs", "shard", "name"),
    [
        ([job("plan", "Complete"), job("shards")], None, "shards-Failed-05"),
        ([job("plan", "Complete"), job("shards", "Failed")], None, "shards-Failed-05"),
        ([job("plan"), ], None, "plan-Succeeded-01"),
        (DONE, None, "finalize-Succeeded-07"),
        (DONE, 1, "shards-Running-06"),
        (DONE, 0, "shards-Succeeded-02"),
    ],
)  # fmt: skip
def test_the_log_of_the_pod_that_tells_most(
    jobs: list[dict[str, Any]], shard: int | None, name: str
) -> None:
    assert pick_pod(jobs, shard, find)["metadata"]["name"] == name


@pytest.mark.parametrize(("shard", "whose"), [(None, ""), (7, " of shard 7")])
def test_a_pod_that_is_gone(shard: int | None, whose: str) -> None:
    with pytest.raises(CommandError) as raised:
        pick_pod(DONE, shard, lambda *_: [])
    assert raised.value.message == (
        f"there is no Pod{whose}, not yet or no more: Pods are kept for "
        "spec.jobTTLSecondsAfterFinished after their Job's end"
    )


def test_a_table_is_printed_as_kubectl_does() -> None:
    def row(namespace: str, *cells: object) -> dict[str, Any]:
        return {"cells": list(cells), "object": {"metadata": {"namespace": namespace}}}

    columns = [
        {"name": "Name"},
        {"name": "Failed"},
        {"name": "CSV", "priority": 1},
        {"name": "Age"},
    ]
    found = {
        "columnDefinitions": columns,
        "rows": [row("shop", "spring", 12, "gs://b", "5s"), row("x", "s", None, None, "3d2h")],
    }
    assert table(found, wide=False, namespaces=False) == [
        "NAME     FAILED   AGE",
        "spring   12       5s",
        "s                 3d2h",
    ]
    assert table(found, wide=True, namespaces=True) == [
        "NAMESPACE   NAME     FAILED   CSV      AGE",
        "shop        spring   12       gs://b   5s",
        "x           s                          3d2h",
    ]


def test_what_is_no_status_is_shown_all_the_same() -> None:
    error = ServerError(502, "<html>\nbad gateway")
    assert (error.reason, error.message) == ("HTTP 502", "<html> bad gateway")


def test_validate_says_every_error_with_its_line(tmp_path: Path) -> None:
    catalogue = tmp_path / "products.csv"
    catalogue.write_text(
        "Serial Number,Product Name,Input Image Urls\n1,,https://a.example/1\n1,Boots,ftp://a\n"
    )
    ended = ipr("validate", catalogue)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"{catalogue}:2: EmptyProductName: line 2 has no product name\n"
        f"{catalogue}:3: DuplicateSerialNumber: line 3 repeats the serial number '1' of line 2\n"
    )
    catalogue.write_text("Serial Number,Product Name,Input Image Urls\n1,Suit,http://10.0.0.1/1\n")
    assert ipr("validate", catalogue).stderr.splitlines()[1:] == [
        "Private addresses are allowed with --allow-network CIDR."
    ]
    catalogue.write_text("Serial Number,\x1b]0;owned\x07Name\n1,Suit\n")
    shown = ipr("validate", catalogue).stderr
    assert "the header has: Serial Number,  ]0;owned Name" in shown
    workbook = tmp_path / "products.xlsx"
    workbook.write_bytes(b"PK\3\4" + bytes(100))
    ended = ipr("validate", workbook)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"{workbook}:1: NotCSV: the catalogue is a workbook")
    manifest = tmp_path / "request.yaml"
    manifest.write_text(
        "# a comment\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: products}\n"
        "data:\n  products.csv: nothing\n---\n"
        "apiVersion: imageprocessing.dev/v1alpha1\nkind: ImageProcessingRequest\n"
        "metadata: {name: spring}\nspec:\n"
        "  source:\n    configMapKeyRef: {name: products, key: products.csv}\n"
        "  output:\n    gcs:\n      bucket: B\n  compression:\n    quality: 500\n"
    )
    ended = ipr("validate", manifest, "--csv", catalogue)
    assert (ended.returncode, ended.stdout) == (2, "")
    lines = ended.stderr.splitlines()
    assert lines[:2] == [
        f"{manifest}:17: spec.output.gcs.bucket: should be at least 3 chars long",
        f"{manifest}:17: spec.output.gcs.bucket: should match '^[a-z0-9]([-_a-z0-9]{{0,61}}[a-z0-9])?"
        "([.][a-z0-9]([-_a-z0-9]{0,61}[a-z0-9])?)*$'",
    ]
    assert (
        lines[2] == f"{manifest}:19: spec.compression.quality: should be less than or equal to 100"
    )
    assert lines[3].startswith(f"{catalogue}:1: ")
    manifest.write_text(manifest.read_text().replace("B\n", "shop\n").replace("500", "50"))
    ended = ipr("validate", manifest)
    assert (ended.returncode, ended.stdout) == (2, f"{manifest}: the request spring is valid\n")
    assert ended.stderr.startswith(f"{manifest}: catalogue:1: MissingColumn: line 1: ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No configuration found"),
        ("just words", "no usable kubeconfig"),
        ("{", "no usable kubeconfig"),
        ("apiVersion: v1", "no usable kubeconfig"),
    ],
)
def test_no_kubeconfig(tmp_path: Path, text: str | None, says: str) -> None:
    """One line, and no traceback."""
    file = tmp_path / "kubeconfig"
    if text is not None:
        file.write_text(text)
    ended = ipr("status", "--kubeconfig", file)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert says in ended.stderr
    assert "name one with --kubeconfig or KUBECONFIG" in ended.stderr
