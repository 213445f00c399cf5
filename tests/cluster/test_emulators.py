"""The emulators answer Google's own clients, and each test has its own part of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.emulators import Firestore, Storage


def test_storage(gcs: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    for name, value in gcs.environment.items():
        monkeypatch.setenv(name, value)
    client: Any = storage.Client(project="test", credentials=AnonymousCredentials())
    blob = client.bucket(gcs.bucket).blob("a/b")
    blob.upload_from_string("text", if_generation_match=0)
    assert [found.name for found in client.list_blobs(gcs.bucket)] == ["a/b"]
    blob.reload()
    assert blob.download_as_bytes() == b"text"


def test_firestore(firestore: Firestore, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.cloud import firestore as client

    for name, value in firestore.environment.items():
        monkeypatch.setenv(name, value)
    collection = client.Client(project=firestore.project).collection("things")
    collection.document("one").set({"field": 1})
    assert [found.to_dict() for found in collection.stream()] == [{"field": 1}]
