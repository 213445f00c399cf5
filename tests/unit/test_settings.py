"""Settings from the environment."""

from __future__ import annotations

import pytest
from imageprocessing_operator.settings import Settings, read_settings


def test_nothing_set() -> None:
    assert read_settings({"PATH": "/bin", "WORKER_IMAGE": "x"}) == Settings()


def test_text_is_text_and_the_rest_json() -> None:
    environ = {
        "IMAGEPROCESSING_WORKER_IMAGE": "registry/worker:1",
        "IMAGEPROCESSING_NAMESPACES": '["a", "b"]',
        "IMAGEPROCESSING_WORKER_RESOURCES": '{"limits": {"cpu": "1"}}',
    }
    found = read_settings(environ)
    assert found.worker_image == "registry/worker:1"
    assert found.namespaces == ["a", "b"]
    assert found.worker_resources == {"limits": {"cpu": "1"}}


@pytest.mark.parametrize("name", ["WORKER_ALLOWED_NETWORKS", "WEBHOOK_ALLOWED_NETWORKS"])
def test_a_network_that_is_none_is_named(name: str) -> None:
    """In the operator and not in each worker Pod, which could not say so."""
    with pytest.raises(ValueError, match=f"IMAGEPROCESSING_{name}: .*10.1.2.3/8"):
        read_settings({f"IMAGEPROCESSING_{name}": '["10.1.2.3/8"]'})


@pytest.mark.parametrize("text", ["", "a,b", '"a"', "[1]"])
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"^IMAGEPROCESSING_NAMESPACES="):
        read_settings({"IMAGEPROCESSING_NAMESPACES": text})
