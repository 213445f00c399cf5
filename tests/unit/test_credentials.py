"""Tokens and certificates are read again: their files change while the operator runs."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from imageprocessing_operator.api import API
from imageprocessing_operator.credentials import _REREAD, _REREAD_REFUSED, connect
from imageprocessing_operator.metrics import Metrics

from tests.unit.certificates import self_signed
from tests.unit.kubeconfigs import write_kubeconfig


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
        await connection.refresh()
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
        connection.note_refusal()
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
            await connection.refresh()
            key = await connection.configuration.get_api_key_with_prefix("BearerToken")
        assert key == "Bearer first"
        assert "cannot read the credentials again" in caplog.text
    finally:
        await connection.close()


class Door(NamedTuple):
    """A server that asks its clients for a certificate, and the files of one client."""

    names: list[str]
    """Of the clients' certificates, one for each request."""
    certificate: Path
    key: Path

    def hand_over(self, pem: Path) -> None:
        """The client has this certificate and its key from now on."""
        self.certificate.write_bytes(pem.read_bytes())
        self.key.write_bytes(pem.read_bytes())


@pytest.fixture
async def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    """It knows `first` and `second`."""
    server = self_signed(tmp_path, "localhost")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(server)
    tls.verify_mode = ssl.CERT_REQUIRED
    for name in ("first", "second"):
        tls.load_verify_locations(self_signed(tmp_path, name))
    found = Door([], tmp_path / "certificate", tmp_path / "key")
    found.hand_over(tmp_path / "first.pem")

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        peer = request.transport.get_extra_info("peercert")
        found.names.append(peer["subject"][0][0][1])
        return web.json_response({"metadata": {"resourceVersion": "1"}})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    listening = TestServer(app, scheme="https")
    await listening.start_server(ssl=tls)
    user = {"client-certificate": str(found.certificate), "client-key": str(found.key)}
    kubeconfig = write_kubeconfig(tmp_path, f"https://localhost:{listening.port}", user)
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["certificate-authority"] = str(server)
    kubeconfig.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    yield found
    await listening.close()


async def test_certificates_are_read_again(
    door: Door, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For new connections; and not before the key has come, too."""
    clock = Clock()
    api = API(await connect(clock), Metrics())
    async with contextlib.aclosing(api):
        await api.version("/x")
        door.certificate.write_bytes((tmp_path / "second.pem").read_bytes())
        clock.now += _REREAD
        await api.version("/x")
        assert "cannot read the credentials again" in caplog.text
        door.hand_over(tmp_path / "second.pem")
        await api.version("/x")
        assert door.names == ["first"] * 3
        clock.now += _REREAD
        await api.version("/x")
        clock.now += _REREAD
        await api.version("/x")
    assert door.names == ["first"] * 3 + ["second"] * 2
