"""Certificates, tokens and kubeconfigs of one test cluster."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

NODE = "node-1"
USERS = {  # name of the kubeconfig and token: (user, group)
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
    "dns": ("dns", "system:masters"),
    "node": (f"system:node:{NODE}", "system:nodes"),
}


def write_pki(directory: Path, addresses: Sequence[str]) -> None:
    """A CA, the API server's certificates and keys, and one bearer token for each user."""
    directory.mkdir()

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=directory, check=True, capture_output=True)

    authority = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=test-ca"]
    # Python 3.13 verifies strictly (RFC 5280): a CA says what its key is for, and what it
    # signs names that key.
    authority += ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    openssl("req", *authority, "-keyout", "ca.key", "-out", "ca.crt")
    openssl("genrsa", "-out", "sa.key", "2048")
    openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")
    names = ",".join(
        ["DNS:localhost", "DNS:kubernetes.default.svc", *(f"IP:{a}" for a in addresses)]
    )
    kubelet_client = "/O=system:masters/CN=kube-apiserver-kubelet-client"
    for name, subject, san in (
        ("api", "/CN=kube-apiserver", names),
        ("kubelet-client", kubelet_client, "DNS:kubelet-client"),
    ):
        (directory / f"{name}.ext").write_text(
            f"subjectAltName={san}\nauthorityKeyIdentifier=keyid\n"
        )
        new_key = ["-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key"]
        openssl("req", *new_key, "-out", f"{name}.csr", "-subj", subject)
        sign = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "3650"]
        files = ["-in", f"{name}.csr", "-out", f"{name}.crt", "-extfile", f"{name}.ext"]
        openssl("x509", "-req", *sign, *files)
    rows = [f'{name}-token,{user},{name},"{group}"' for name, (user, group) in USERS.items()]
    (directory / "tokens.csv").write_text("\n".join(rows) + "\n")


def write_kubeconfigs(directory: Path, servers: dict[str, str]) -> None:
    """One USER.kubeconfig for each user, for the server named for it or for `admin`."""
    for user in USERS:
        cluster = {
            "server": servers.get(user, servers["admin"]),
            "certificate-authority": str(directory / "pki/ca.crt"),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": f"{user}-token"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        }
        (directory / f"{user}.kubeconfig").write_text(json.dumps(config, indent=1))
