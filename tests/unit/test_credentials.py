"""A token file is read again: it changes while the operator runs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml
from imageprocessing_operator.api import _REREAD, _REREAD_REFUSED, connect, note_refusal


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "token"
    config = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"tokenFile": str(file)}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    file.write_text("first")
    return file


async def test_it_is_read_again_after_a_minute_or_a_refusal(token: Path) -> None:
    clock = Clock()
    connection = await connect(clock)

    async def known() -> str | None:
        return await connection.configuration.get_api_key_with_prefix("BearerToken")

    try:
        token.write_text("second")
        clock.now += _REREAD - 1
        assert await known() == "Bearer first"
        clock.now += 1
        assert await known() == "Bearer second"
        token.write_text("third")
        clock.now += _REREAD_REFUSED
        assert await known() == "Bearer second"
        note_refusal(connection)
        assert await known() == "Bearer third"
    finally:
        await connection.close()


async def test_one_that_cannot_be_read_leaves_the_old_one(
    token: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    connection = await connect(clock)
    try:
        token.unlink()
        clock.now += _REREAD
        with caplog.at_level(logging.WARNING):
            key = await connection.configuration.get_api_key_with_prefix("BearerToken")
        assert key == "Bearer first"
        assert "cannot read the credentials again" in caplog.text
    finally:
        await connection.close()
