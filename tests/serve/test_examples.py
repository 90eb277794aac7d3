"""The programs to copy: each does what its own first lines say."""

from __future__ import annotations

import re
import shutil
import urllib.request
from typing import TYPE_CHECKING

import pytest

from support import served
from support.source_tree import ROOT

if TYPE_CHECKING:
    from support.service_home import Home

pytestmark = [pytest.mark.real, pytest.mark.slow]
WEB = ROOT / "examples" / "web"
PAGES = sorted([*WEB.glob("*.py"), WEB / "django_site" / "hello_site" / "__init__.py"])


def _fetch(address: tuple[str, int] | str) -> bytes:
    url = f"http://{address[0]}:{address[1]}/"
    with urllib.request.urlopen(url, timeout=30) as answer:
        body: bytes = answer.read()
    return body


def _try(home: Home, line: str) -> None:
    words = line.split()[2:]  # without `forkfirst start`
    server = words[words.index("--serve") + 1]
    served.need(server)
    words[words.index("--listen") + 1] = "web=127.0.0.1:0"
    home.start(*words)
    name = words[words.index("--name") + 1] if "--name" in words else words[0].partition(".py")[0]
    assert b"hello from " in _fetch(home.address(name))
    done = home.forkfirst("reload", name)
    assert done.status == 0, done
    assert b"hello from " in _fetch(home.address(name))
    home.stop(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name + "/" + page.stem)
def test_an_example_starts_answers_reloads_and_stops(home: Home, page: object) -> None:
    """As a person would type it, but for the port."""
    text = WEB.joinpath(str(page)).read_text(encoding="utf-8")
    framework = re.findall(r"pip install .* (\w+)", text) or ["aiohttp"]
    served.need(framework[0])
    folder = home.directory / "web"
    shutil.copytree(WEB, folder)
    home.directory = folder / "django_site" if "django" in text else folder
    line = re.findall(r"^forkfirst start .*", text, flags=re.MULTILINE)[0]
    _try(home, line)
    if "django" in text:
        _try(home, line.replace("asgi:", "wsgi:").replace("uvicorn", "hypercorn"))
