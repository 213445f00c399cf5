"""The image of the container that holds a Pod's namespaces, made here since none can be pulled."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.cluster.cache import digest, exclusive, project_cache

PAUSE_IMAGE = "localhost/pause:1"
SOURCE = """\
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
}
"""


def pause_archive() -> Path:
    """A Docker archive with the image, from the cache after the first time."""
    archive = project_cache() / f"pause-{digest(SOURCE)}.tar"
    with exclusive(project_cache() / "pause.lock"):
        if not archive.exists():
            part = archive.with_suffix(".part")
            part.write_bytes(build())
            part.rename(archive)
    return archive


def build() -> bytes:
    """Compiles the program and wraps it into an image of one layer."""
    with tempfile.TemporaryDirectory() as directory:
        source, program = Path(directory, "pause.go"), Path(directory, "pause")
        source.write_text(SOURCE)
        command = ["go", "build", "-ldflags", "-s -w", "-o", str(program), str(source)]
        subprocess.run(command, check=True, env={**os.environ, "CGO_ENABLED": "0"})
        layer = tar({"pause": program.read_bytes()})
    layers = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
    architecture = subprocess.run(
        ["go", "env", "GOARCH"], check=True, capture_output=True, text=True
    )
    config = {
        "architecture": architecture.stdout.strip(),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": layers,
    }
    manifest = {"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}
    return tar(
        {
            "config.json": json.dumps(config).encode(),
            "manifest.json": json.dumps([manifest]).encode(),
            "layer.tar": layer,
        }
    )


def tar(files: dict[str, bytes]) -> bytes:
    """A tar archive of executable files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
