"""Runs the table through validate(), and checks that the table leaves nothing of the CRD out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from imageprocessing_cli.manifest import validate, with_defaults
from imageprocessing_contract.crd import crd_yaml
from imageprocessing_contract.request import parse_spec

from tests.manifests.table import MINIMAL, Case, all_cases

CASES = all_cases()
LIMITS = (
    "enum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minLength",
    "minimum",
    "pattern",
)
SIZES = {
    "maxItems": 1,
    "maxLength": 1,
    "maxProperties": 1,
    "maximum": 1,
    "minLength": -1,
    "minimum": -1,
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case) -> None:
    errors = validate(case.manifest, case.old)

    if case.accepted:
        assert errors == []
    else:
        assert any(e.path == case.field and case.message in e.message for e in errors), errors


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.accepted and c.old is None], ids=lambda case: case.name
)
def test_the_contract_reads_what_the_resource_accepts(case: Case) -> None:
    parse_spec(with_defaults(case.manifest)["spec"])


@dataclass(frozen=True)
class Limit:
    """One limit or rule of the schema; path is a regular expression of fields."""

    path: str
    keyword: str
    value: Any

    def is_hit(self, case: Case) -> bool:
        return case.breaks == self.keyword and re.fullmatch(self.path, case.field or "") is not None

    def __str__(self) -> str:
        return f"{self.path} {self.keyword}"


def limits(schema: Mapping[str, Any], path: str) -> Iterator[Limit]:
    yield from (Limit(path, keyword, schema[keyword]) for keyword in LIMITS if keyword in schema)
    for rule in schema.get("x-kubernetes-validations", []):
        at = (path + re.escape(rule.get("fieldPath", ""))).removeprefix(r"\.")
        yield Limit(at, rule["message"], rule["rule"])
    for name, child in schema.get("properties", {}).items():
        at = f"{path}{re.escape('.') if path else ''}{re.escape(name)}"
        if name in schema.get("required", []):
            yield Limit(at, "required", True)
        if at != "status":  # the operator's, no manifest can hold one
            yield from limits(child, at)
    if "items" in schema:
        yield from limits(schema["items"], path + r"\[\d+\]")
    if "additionalProperties" in schema:
        yield from limits(schema["additionalProperties"], path + r"\..+")


SCHEMA = yaml.safe_load(crd_yaml())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
ALL_LIMITS = list(limits(SCHEMA, ""))
# Where no value of exactly this size is valid, as another rule is stricter.
NEVER_REACHED = {r"spec\.download\.maxSize maxLength"}  # 999999Ki is the longest


@pytest.mark.parametrize("limit", ALL_LIMITS, ids=str)
def test_every_limit_and_rule_refuses_something(limit: Limit) -> None:
    hits = [case for case in CASES if limit.is_hit(case)]

    assert hits
    if limit.keyword in SIZES:
        beyond = limit.value + SIZES[limit.keyword]
        assert beyond in {size(case.value, limit.keyword) for case in hits}


@pytest.mark.parametrize("limit", [x for x in ALL_LIMITS if x.keyword in SIZES], ids=str)
def test_every_limit_accepts_what_just_keeps_it(limit: Limit) -> None:
    if str(limit) in NEVER_REACHED:
        return
    accepted = [c for c in CASES if c.accepted and c.field and re.fullmatch(limit.path, c.field)]

    assert limit.value in {size(case.value, limit.keyword) for case in accepted}


@pytest.mark.parametrize("limit", [x for x in ALL_LIMITS if x.keyword == "enum"], ids=str)
def test_every_value_of_an_enumeration_is_accepted(limit: Limit) -> None:
    accepted = [c for c in CASES if c.accepted and c.field and re.fullmatch(limit.path, c.field)]

    assert {case.value for case in accepted} == set(limit.value)


@pytest.mark.parametrize("limit", [x for x in ALL_LIMITS if x.keyword == "pattern"], ids=str)
def test_patterns_mean_the_same_in_re2_and_python(limit: Limit) -> None:
    assert limit.value.startswith("^")
    assert limit.value.endswith("$")
    assert not re.search(r"\\[dswDSWbB]|\(\?", limit.value)


def fields(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, child in schema.get("properties", {}).items():
        yield f"{path}{name}", child
        yield from fields(child, f"{path}{name}.")
    if "items" in schema:
        yield from fields(schema["items"], path)


@pytest.mark.parametrize(
    ("path", "schema"), list(fields(SCHEMA, "")), ids=lambda v: v if isinstance(v, str) else ""
)
def test_every_field_explains_itself(path: str, schema: Mapping[str, Any]) -> None:
    if path != "metadata":  # the API server describes that
        assert schema["description"].endswith(".")


def size(value: Any, keyword: str) -> Any:
    if keyword in {"minimum", "maximum"}:
        return value if isinstance(value, int) else None
    return len(value) if isinstance(value, str | list | dict) else None


def test_defaults_are_those_of_the_design() -> None:
    made = with_defaults(MINIMAL)

    assert made == {
        **MINIMAL,
        "spec": {
            **MINIMAL["spec"],
            "output": {**MINIMAL["spec"]["output"], "formulas": "Keep"},
            "compression": {
                "format": "JPEG",
                "progressive": False,
                "background": "#ffffff",
                "keepOriginalIfSmaller": True,
                "metadata": "Strip",
            },
            "download": {
                "timeoutSeconds": 30,
                "maxSize": "50Mi",
                "maxPixels": 50_000_000,
                "retries": 3,
                "maxConnectionsPerHost": 16,
            },
            "sharding": {"imagesPerShard": 1000, "maxParallelism": 10, "retriesPerShard": 3},
            "failurePolicy": {"maxFailedImages": "100%", "invalidRows": "Fail"},
            "worker": {},
            "activeDeadlineSeconds": 86400,
            "suspend": False,
            "jobTTLSecondsAfterFinished": 3600,
        },
        "status": {"observedGeneration": -1},
    }


def test_defaults_leave_the_manifest_as_it_was() -> None:
    manifest = {"spec": {"webhook": {}, "compression": None}}

    assert with_defaults(manifest)["spec"]["webhook"] == {"timeoutSeconds": 20}
    assert manifest == {"spec": {"webhook": {}, "compression": None}}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kind", "ImageProcessingRequests", 'supported values: "ImageProcessingRequest"'),
        (
            "apiVersion",
            "imageprocessing.dev/v1",
            'supported values: "imageprocessing.dev/v1alpha1"',
        ),
    ],
)
def test_another_resource_is_refused(field: str, value: str, message: str) -> None:
    (error,) = validate({**MINIMAL, field: value})

    assert error.path == field
    assert message in str(error)
