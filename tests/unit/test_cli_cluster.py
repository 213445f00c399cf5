"""How ipr follows a request through what connections do: a real server, a real kubeconfig."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner
from imageprocessing_cli.cluster import Cluster, connect
from imageprocessing_cli.errors import CommandError, ServerError, UnreachableError
from imageprocessing_cli.main import main

from tests.unit.http_servers import QuietHandler, serving
from tests.unit.kubeconfigs import write_kubeconfig

REQUESTS = "/apis/imageprocessing.dev/v1alpha1/namespaces/shop/imageprocessingrequests"


GONE = json.dumps({"reason": "Expired", "message": "too old resource version"}).encode()


def request(version: int, uid: str = "1") -> dict[str, Any]:
    return {"metadata": {"name": "spring", "uid": uid, "resourceVersion": str(version)}}


def event(kind: str, found: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


@dataclass
class Server:
    """Gives a request as often as `gets` has one, and each watch the bytes of `watches`."""

    address: str
    gets: list[dict[str, Any] | int] = field(default_factory=list)
    watches: list[tuple[bytes, bool]] = field(default_factory=list)
    """Bytes, and whether the answer then ends as it should."""
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: N802 - as http.server names it
            served.tokens.add(self.headers["Authorization"])
            parts = urlsplit(self.path)
            if "watch" in (query := parse_qs(parts.query)):
                served.asked.append(f"watch {query['resourceVersion'][0]}")
                assert parts.path == REQUESTS
                assert query["fieldSelector"] == ["metadata.name=spring"]
                data, whole = served.watches.pop(0)
                if data == GONE:
                    self.answer(410, data)
                else:
                    self.watch(data, whole)
                return
            served.asked.append("get")
            assert parts.path == f"{REQUESTS}/spring"
            found = served.gets.pop(0) if served.gets else 503
            code = found if isinstance(found, int) else 200
            self.answer(code, b"no JSON" if isinstance(found, int) else json.dumps(found).encode())

        def answer(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def watch(self, data: bytes, whole: bool) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            # Events do not come in chunks of their own.
            for part in (data[:7], data[7:]):
                if part:
                    self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            if whole:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

    with serving(Handler) as address:
        served = Server(address)
        yield served


@pytest.fixture
def cluster(server: Server, tmp_path: Path) -> Cluster:
    return connect(write_kubeconfig(tmp_path, server.address), None, None)


def versions(found: list[dict[str, Any]]) -> list[str]:
    return [one["metadata"]["resourceVersion"] for one in found]


def take(changes: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return [next(changes) for _ in range(count)]


def test_a_watch_that_is_cut_is_taken_up_again(server: Server, cluster: Cluster) -> None:
    server.gets = [request(1), 503, request(3), request(9), request(11)]
    server.watches = [
        (event("MODIFIED", request(2)), False),
        (event("ERROR", {"code": 410}), True),
        (GONE, True),
        (event("MODIFIED", request(12)), True),
    ]
    pauses: list[float] = []
    changes = cluster.follow("spring", pauses.append)
    assert versions(take(changes, 6)) == ["1", "2", "3", "9", "11", "12"]
    assert server.asked == [
        *("get", "watch 1", "get"),
        *("get", "watch 3"),
        *("get", "watch 9"),
        *("get", "watch 11"),
    ]
    assert server.tokens == {"Bearer secret"}
    # Twice after the cut, once for 410 as an answer; not after an end.
    assert pauses == [1, 2, 1]


def test_a_page_in_front_of_the_api(tmp_path: Path) -> None:
    """A proxy that wants a login answers 200."""

    class Login(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 - as http.server names it
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<title>Sign in</title>")

    with serving(Login) as address:
        cluster = connect(write_kubeconfig(tmp_path, address), None, None)
        with pytest.raises(CommandError, match="no API server; it answered: <title>Sign in"):
            cluster.request("spring")


def test_a_server_that_stays_away_is_given_up(server: Server, cluster: Cluster) -> None:
    server.gets = [request(1)]
    server.watches = [(event("MODIFIED", request(2)), True)]
    pauses: list[float] = []
    changes = cluster.follow("spring", pauses.append)
    take(changes, 2)
    with pytest.raises(ServerError, match="no JSON"):
        next(changes)
    assert sum(pauses) == 105


def test_a_server_that_was_never_there_is_not_waited_for(tmp_path: Path) -> None:
    cluster = connect(write_kubeconfig(tmp_path, "http://127.0.0.1:1"), None, None)
    with pytest.raises(UnreachableError):
        next(cluster.follow("spring", lambda _: pytest.fail("waited")))


@pytest.mark.parametrize(
    ("gets", "watch"),
    [
        ([request(1)], event("DELETED", request(2))),
        ([request(1), request(9, uid="2")], b""),
    ],
    ids=["deleted", "another one of its name"],
)
def test_a_request_that_is_gone(
    server: Server, cluster: Cluster, gets: list[dict[str, Any] | int], watch: bytes
) -> None:
    server.gets, server.watches = gets, [(watch, True)]
    with pytest.raises(CommandError) as raised:
        list(cluster.follow("spring"))
    assert raised.value.message == 'the request "spring" was deleted'


def test_what_is_between_ipr_and_the_api_server_is_quoted(server: Server, cluster: Cluster) -> None:
    server.gets = [502]
    with pytest.raises(ServerError) as raised:
        cluster.request("spring")
    assert (raised.value.reason, raised.value.message) == ("HTTP 502", "no JSON")


def test_credentials_may_come_from_a_plugin(server: Server, tmp_path: Path) -> None:
    """As those of GKE, EKS and OpenID Connect do, of either version."""
    for version in ("v1", "v1beta1"):
        kind = f"client.authentication.k8s.io/{version}"
        said = {"apiVersion": kind, "kind": "ExecCredential", "status": {"token": version}}
        plugin = {"apiVersion": kind, "command": "echo", "args": [json.dumps(said)]}
        file = write_kubeconfig(tmp_path, server.address, {"exec": plugin})
        server.gets = [request(1)]
        assert connect(file, None, None).request("spring") == request(1)
    assert server.tokens == {"Bearer v1", "Bearer v1beta1"}


def test_a_cluster_of_another_version(server: Server, tmp_path: Path) -> None:
    """One line, and no traceback."""
    server.gets = [{**request(1), "spec": {"source": {}, "output": 1}}]
    file = write_kubeconfig(tmp_path, server.address)
    shown = CliRunner().invoke(main, ["status", "spring", "--kubeconfig", str(file)])
    assert shown.exit_code == 1
    assert shown.output == (
        "error: the cluster's ImageProcessingRequest is of another version than ipr: "
        "Expected `object`, got `int` - at `$.output`\n"
    )


@pytest.mark.parametrize(
    ("context", "namespace", "wanted"),
    [
        (None, None, "shop"),
        ("there", None, "other"),
        ("bare", None, "default"),
        ("there", "own", "own"),
    ],
)
def test_the_namespace_is_the_options_or_the_contexts(
    tmp_path: Path, context: str | None, namespace: str | None, wanted: str
) -> None:
    file = write_kubeconfig(tmp_path, "http://127.0.0.1:1")
    assert connect(file, context, namespace).namespace == wanted
