"""The project's two images as one Docker archive, built again only when what goes into them changed.

python -m tests.cluster.images builds both and gives them to the Docker daemon that runs.
BASE_IMAGE names another base than python:3.13-slim.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cluster.cache import digest, exclusive, project_cache
from tests.cluster.docker import Docker, docker_daemon

ROOT = Path(__file__).resolve().parents[2]
BASE = "python:3.13-slim"
IMAGES = {
    "imageprocessing-operator:dev": "Dockerfile.operator",
    "imageprocessing-worker:dev": "Dockerfile.worker",
}
SOURCES = ("contract", "operator", "worker", "crds", "locks")
# trixie's Python is 3.13 as well.
SUITE, PACKAGES = "trixie", "python3,python3-venv,ca-certificates"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
LEFT_OUT = (
    "var/cache/*/*",
    "var/lib/apt/lists/*",
    "usr/share/doc/*",
    "usr/share/info/*",
    "usr/share/locale/*",
    "usr/share/man/*",
)
KEPT_ARCHIVES = 3


def images_archive() -> Path:
    """A Docker archive of both images for the sources as they are."""
    directory = project_cache() / "images"
    archive = directory / f"{sources_digest()}.tar"
    with exclusive(directory / "lock"):
        if archive.exists():
            archive.touch()  # the oldest go first
        else:
            part = archive.with_suffix(".part")
            with docker_daemon() as docker:
                build(docker)
                docker.check("save", "-o", str(part), *IMAGES)
                if docker.host:  # our own daemon: nobody else tidies up its layers
                    docker.check("image", "prune", "--force", "--filter=until=168h")
            part.rename(archive)
        newest_first = sorted(directory.glob("*.tar"), key=lambda file: -file.stat().st_mtime)
        for old in newest_first[KEPT_ARCHIVES:]:
            old.unlink()
    return archive


def sources_digest() -> str:
    """Changes when anything that goes into the images does."""
    files = [ROOT / ".dockerignore", *(ROOT / dockerfile for dockerfile in IMAGES.values())]
    for source in SOURCES:
        files += sorted(
            path
            for path in (ROOT / source).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        )
    named = (part for file in files for part in (str(file.relative_to(ROOT)), file))
    return digest(os.environ.get("BASE_IMAGE", BASE), Path(__file__), *named)


def build(docker: Docker) -> None:
    """Builds both images."""
    base = base_image(docker)
    for image, dockerfile in IMAGES.items():
        # The machine's network: there is no other when the daemon is our own.
        flags = ["--network=host", f"--build-arg=BASE_IMAGE={base}", f"--file={ROOT / dockerfile}"]
        docker.check("build", *flags, f"--tag={image}", str(ROOT), stdout=sys.stderr.buffer)


def base_image(docker: Docker) -> str:
    """BASE_IMAGE, or python:3.13-slim where a registry can be reached, or a Debian made here."""
    if given := os.environ.get("BASE_IMAGE"):
        return given
    if docker.succeeds("image", "inspect", BASE) or docker.succeeds("pull", "--quiet", BASE):
        return BASE
    recipe = digest(SUITE, PACKAGES, *LEFT_OUT, CERTIFICATES)
    name = f"localhost/python:3.13-slim-{recipe}"
    if not docker.succeeds("image", "inspect", name):
        with debian(recipe).open("rb") as archive:
            docker.check("import", "-", name, stdin=archive, stdout=sys.stderr.buffer)
    return name


def debian(recipe: str) -> Path:
    """A small Debian with Python as a tar archive, from the cache after the first time (40 s)."""
    archive = project_cache() / f"debian-{SUITE}-{recipe}.tar"
    if not archive.exists():
        part = archive.with_suffix(".part")
        with tempfile.TemporaryDirectory() as root:
            bootstrap = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, root]
            subprocess.run(bootstrap, check=True, stdout=sys.stderr)
            # So that pip trusts, inside a build, whom this machine trusts.
            (Path(root) / CERTIFICATES.relative_to("/")).write_bytes(CERTIFICATES.read_bytes())
            excluded = [f"--exclude=./{pattern}" for pattern in LEFT_OUT]
            subprocess.run(["tar", "-C", root, *excluded, "-cf", str(part), "."], check=True)
        part.rename(archive)
    return archive


def main() -> None:
    """Makes the images known to the daemon that runs, or leaves them in the cache."""
    archive = images_archive()
    if Docker().succeeds("info"):
        Docker().check("load", "--input", str(archive))
    sys.stdout.write(f"{archive}\n")


if __name__ == "__main__":
    main()
