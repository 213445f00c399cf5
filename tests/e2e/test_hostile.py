"""Images that would fill the container's memory, in a real container with a real limit."""

from __future__ import annotations

from PIL import Image

from tests import photos
from tests.cluster.emulators import Storage
from tests.e2e.conftest import Tenant
from tests.unit.raw_server import Exchange, served

MEMORY = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
"""640 MiB of it are for decoding, and 128 for bodies."""


def files() -> dict[str, tuple[bytes, str | None]]:
    """By name: the file, and why it gives no image."""
    size = (8660, 5773)  # 50 megapixels
    plain, clear = Image.new("RGB", size, "#345"), Image.new("RGBA", size, "#34567890")
    named: dict[str, tuple[bytes, str | None]] = {
        f"photo-{number}": (data, None)
        for number, (_, data) in enumerate(photos.crops(20, 640, 480))
    }
    # Each of these fits, but not two of them at once.
    named |= {
        "large.jpg": (photos.encoded(plain, "JPEG", progressive=True), None),
        "large.avif": (photos.encoded(plain, "AVIF", speed=10), None),
        "large.png": (photos.encoded(clear, "PNG", compress_level=1), None),
    }
    # libwebp alone takes 800 MiB.
    named |= {
        f"large-{number}.webp": (photos.encoded(plain, "WEBP", method=0), "DecodeOutOfMemory")
        for number in range(2)
    }
    # All at once they would take 480 MiB before anybody has looked at them.
    named |= {
        f"noise-{number}": (bytes((7, number)) * (24 << 20), "NotAnImage") for number in range(10)
    }
    return named


def test_a_shard_lives_on_within_the_limit_of_its_container(
    tenant: Tenant, gcs: Storage, server_host: str
) -> None:
    known = files()

    async def answer(exchange: Exchange) -> None:
        await exchange.reply(known[exchange.target[1:].decode()][0])

    with served(answer, "0.0.0.0") as server:
        host = f"http://{server_host}:{server.port}"
        urls = {f"{host}/{name}": why for name, (_, why) in known.items()}
        rows = [f"{number},{url},{url}" for number, url in enumerate(urls)]
        text = "\n".join(["Serial Number,Product Name,Input Image Urls", *rows])
        tenant.request(
            "hostile",
            source=tenant.catalogue("products", text + "\n"),
            output={"gcs": {"bucket": gcs.bucket}},
            worker={"resources": MEMORY},
            download={"retries": 0},
        )
        status = tenant.wait_finished("hostile", 300)

    failed = {url: why for url, why in urls.items() if why}
    assert status["images"]["succeeded"] == len(urls) - len(failed), tenant.story()
    assert status["images"]["failed"] == len(failed)
    # The status names ten of them.
    assert len(status["failures"]) == 10
    for failure in status["failures"]:
        assert failure["reason"] == failed[failure["url"]], failure
    (pod,) = tenant.pods()
    (container,) = pod["status"]["containerStatuses"]
    assert container["restartCount"] == 0
    ended = container["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("Completed", 0)
