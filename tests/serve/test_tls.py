"""Certificates: who renews one reloads the service, and nobody waits for that."""

from __future__ import annotations

import shutil
import ssl
from typing import TYPE_CHECKING

import pytest

from support import served

if TYPE_CHECKING:
    from support.service_home import Home

OPTIONS = {
    "uvicorn": ("ssl-certfile", "ssl-keyfile"),
    "hypercorn": ("certfile", "keyfile"),
    "granian": ("ssl-cert", "ssl-key"),
}


def _write_certificate(home: Home, name: str) -> None:
    """Write a certificate for *name*, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", "key.pem", "-out", "cert.pem")
    made = home.run(
        *("openssl", "req", "-x509", *curve, *files, "-days", 2, "-subj", f"/CN={name}"),
        *("-addext", f"subjectAltName=DNS:{name}"),
    )
    assert made.status == 0, made


def _ask(home: Home, name: str) -> bytes:
    """Ask over TLS, trusting the certificate of today and no other."""
    context = ssl.create_default_context(cafile=str(home.directory / "cert.pem"))
    with (
        served.connect(home.address("app")) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        served.send(connection, "/")
        return served.read(connection)[1]


@pytest.mark.parametrize(
    "how",
    [
        "uvicorn asyncio",
        *(
            pytest.param(one, marks=[pytest.mark.slow, pytest.mark.real])
            for one in ("uvicorn uvloop", "hypercorn asyncio", "hypercorn trio", "granian asyncio")
        ),
    ],
)
def test_a_reload_takes_the_certificate_of_today(home: Home, how: str) -> None:
    """And one that does not fit its key changes nothing: the workers from before serve on."""
    certificate, key = OPTIONS[how.partition(" ")[0]]
    _write_certificate(home, "first.example")
    flags = ("--serve-option", f"{certificate}=cert.pem", "--serve-option", f"{key}=key.pem")
    served.begin(home, how, *flags, "--workers", 1)
    assert _ask(home, "first.example") == b"first"
    _write_certificate(home, "other.example")
    assert home.forkfirst("reload", "app").status == 0
    assert _ask(home, "other.example") == b"first"
    (home.directory / "key.pem").write_text("no key at all\n")
    refused = home.forkfirst("reload", "app")
    assert (refused.status, "refuses its options" in refused.err) == (70, True), refused
    assert _ask(home, "other.example") == b"first"
    home.stop("app")
