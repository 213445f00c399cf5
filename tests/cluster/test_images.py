"""The two images hold what their side needs, and nothing else."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.cluster import docker
from tests.cluster import images as images_module
from tests.cluster.cluster import Cluster
from tests.cluster.jobs import OPERATOR, WORKER, run_python
from tests.conftest import needs
from tests.locks import pins

LOOK = """
import importlib.metadata, importlib.util, json, os, pathlib, shutil, sys
def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
import imageprocessing_contract
contract = pathlib.Path(imageprocessing_contract.__file__).parent
try:
    pathlib.Path("/probe").touch()
    writable = True
except OSError:
    writable = False
print(json.dumps({
    "ours": sorted(path.name for path in contract.parent.glob("imageprocessing_*")),
    "foreign": [n for n in ("PIL", "google.cloud", "kopf", "kubernetes", "pip") if there(n)],
    "tools": [n for n in ("uv", "gcc", "cc") if shutil.which(n)],
    "user": os.getuid(),
    "writable": writable,
    "compiled": (contract / "__pycache__").is_dir(),
    "version": sys.version_info[:2],
    "installed": {d.name: d.version for d in importlib.metadata.distributions()},
}))
"""


@pytest.mark.parametrize(
    ("image", "side", "foreign"),
    [
        (OPERATOR, "imageprocessing_operator", ["kopf", "kubernetes"]),
        (WORKER, "imageprocessing_worker", ["PIL", "google.cloud"]),
    ],
)
def test_an_image_holds_its_side_only(
    node_cluster: Cluster, images: None, image: str, side: str, foreign: list[str]
) -> None:
    with node_cluster.namespace() as namespace:
        seen = json.loads(run_python(node_cluster, namespace, image, LOOK))
    installed = {canonicalize_name(name): it for name, it in seen.pop("installed").items()}
    # So that the bill of materials, which is made from the lock, is true of the image.
    assert installed == pins(side.removeprefix("imageprocessing_"))
    assert seen == {
        "ours": ["imageprocessing_contract", side],
        "foreign": foreign,
        "tools": [],
        "user": 65532,
        "writable": False,
        "compiled": True,
        "version": [3, 13],
    }


def test_labels_say_what_an_image_is(images: None) -> None:
    """With the keys of OCI's image-spec, annotations.md."""
    needs(docker.missing())
    labels = {}
    with tarfile.open(images_module.images_archive()) as archive:
        for image in json.load(archive.extractfile("manifest.json") or io.BytesIO()):
            config = json.load(archive.extractfile(image["Config"]) or io.BytesIO())
            labels[image["RepoTags"][0]] = config["config"]["Labels"]
    for name in images_module.IMAGES:
        prefix = "org.opencontainers.image."
        said = {
            key.removeprefix(prefix): label
            for key, label in labels[name].items()
            if key.startswith(prefix)
        }
        assert said.pop("title") == name.removesuffix(":dev")
        assert said.pop("licenses") == "Apache-2.0"
        assert all(said.pop(key).startswith("https://") for key in ("url", "source"))
        assert sorted(said) == ["description", "revision", "version"]


def test_images_are_known_by_what_goes_into_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".dockerignore", *images_module.IMAGES.values(), "worker/code.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(images_module, "ROOT", tmp_path)
    monkeypatch.delenv("BASE_IMAGE", raising=False)
    before = images_module.sources_digest()

    (tmp_path / "worker/code.py").touch()
    (tmp_path / "worker/__pycache__").mkdir()
    (tmp_path / "worker/__pycache__/code.pyc").touch()
    assert images_module.sources_digest() == before

    (tmp_path / "worker/code.py").write_text("changed")
    changed = images_module.sources_digest()
    (tmp_path / "worker/code.py").rename(tmp_path / "worker/renamed.py")
    monkeypatch.setenv("BASE_IMAGE", "another")
    assert len({before, changed, images_module.sources_digest()}) == 3
