"""The same to a PersistentVolumeClaim: no Google service has a part in it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from imageprocessing_contract import names
from PIL import Image

from tests.cluster.claims import make_claim, read_claim
from tests.e2e.conftest import Tenant, rows_of


def test_sharded_to_a_claim(tenant: Tenant, photo_urls: list[str], tmp_path: Path) -> None:
    """60 rows in 6 shards: each picture, each of its variants and each cell is there."""
    make_claim(tenant.cluster, tenant.namespace, "images")
    source = tenant.catalogue("products", rows_of(photo_urls, 60))
    tenant.request(
        "claim",
        requestID="spring",
        source=source,
        output={"persistentVolumeClaim": {"claimName": "images", "path": "shop"}},
        sharding={"imagesPerShard": 30, "maxParallelism": 3},
        compression={"widths": [1280, 320]},
    )
    status = tenant.wait_finished("claim", 240)
    assert status["images"]["succeeded"] == 180
    assert status["results"]["csvURL"] == f"shop/spring/{names.processed_csv('spring')}"

    root = read_claim(tenant.cluster, tenant.namespace, "images", tmp_path) / "shop" / "spring"
    text = (root / names.processed_csv("spring")).read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 60
    # Nothing is enlarged: what would be 1,280 px wide is the image itself.
    for column, narrow in [("", False), (" 1280w", False), (" 320w", True)]:

        def path(url: str, narrow: bool = narrow) -> str:
            image = names.image_object(url, "jpg")
            return names.variant_of(image, 320) if narrow else image

        assert [row[f"Output Image Urls{column}"].split(",") for row in rows] == [
            [f"shop/spring/{path(url)}" for url in row["Input Image Urls"].split(",")]
            for row in rows
        ]
        for url in photo_urls:
            with Image.open(root / path(url)) as image:
                size = (320, 240) if narrow else (640, 480)
                assert (image.format, image.size) == ("JPEG", size)
    stored = [path for path in (root / "compressed_images").rglob("*") if path.is_file()]
    assert len(stored) == 2 * len(photo_urls)
    assert not (root / ".incoming").exists()


def test_source_in_a_claim(tenant: Tenant, photo_urls: list[str], tmp_path: Path) -> None:
    """The processed CSV of one request is a catalogue that another one reads from the claim."""
    make_claim(tenant.cluster, tenant.namespace, "both")
    output = {"persistentVolumeClaim": {"claimName": "both"}}
    tenant.request(
        "one", requestID="one", source={"inline": rows_of(photo_urls[:2], 2)}, output=output
    )
    tenant.wait_finished("one")
    path = f"one/{names.processed_csv('one')}"
    source = {"persistentVolumeClaim": {"claimName": "both", "path": path}}
    tenant.request("two", requestID="two", source=source, output=output)
    status = tenant.wait_finished("two")
    assert status["images"]["succeeded"] == 2
    root = read_claim(tenant.cluster, tenant.namespace, "both", tmp_path)
    first, second = (
        (root / run / names.processed_csv(run)).read_text().replace(f"{run}/comp", "comp")
        for run in ("one", "two")
    )
    assert first == second
