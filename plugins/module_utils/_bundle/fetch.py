# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many downloads at once, each with retries, continued where it was cut off, and checked. Nothing is fetched twice."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener, getproxies

from ansible_collections.turnkey.hpc.plugins.module_utils._apt_sources import proxy_of
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.tree import digest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, join_problems

__all__ = ["Download", "Progress", "fetch", "fetch_all", "opener"]

ATTEMPTS = 5
WORKERS = 16
TIMEOUT_SECONDS = 60
CHUNK = 1 << 18
# What another attempt does not mend.
FINAL = (400, 401, 403, 404, 405, 410, 451)

Open = Callable[[Request], Any]


@dataclass(frozen=True)
class Download:
    """A file to bring to ``path``. Without a digest it is fetched if it is not there."""

    url: str
    path: Path
    sha256: str = ""
    size: int = 0


class Progress:
    """Counts bytes, and says a few times how far it is."""

    def __init__(self, total: int, say: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing of ``total`` bytes."""
        self.total, self.say, self.now = total, say, now
        self.done, self.began, self.told = 0, now(), now()
        self.lock = threading.Lock()

    def add(self, size: int) -> None:
        """Note ``size`` more bytes; every five seconds is said how many there are."""
        with self.lock:
            self.done += size
            if self.now() - self.told >= 5:
                self.told = self.now()
                speed = self.done / max(self.told - self.began, 0.001) / 1e6
                self.say(f"{self.done / 1e6:.0f} of {self.total / 1e6:.0f} MB, {speed:.1f} MB/s")


def opener(apt_proxies: dict[str, str]) -> Open:
    """Return what opens addresses: through the environment's proxy, or else through APT's."""
    environment = getproxies()

    def open_url(request: Request) -> Any:
        url = urlsplit(request.full_url)
        proxy = "" if url.scheme in environment else proxy_of(url, apt_proxies)
        handler = ProxyHandler({url.scheme: proxy}) if proxy else ProxyHandler()
        return build_opener(handler).open(request, timeout=TIMEOUT_SECONDS)

    return open_url


def _copy(source: Path, part: Path) -> None:
    try:
        shutil.copyfile(source, part)
    except OSError as error:
        raise HpcError(f"{source} can't be read: {error.strerror}.") from error


def _receive(download: Download, part: Path, open_url: Open, progress: Progress) -> None:
    """Fetch what is not in ``part`` yet."""
    there = part.stat().st_size if part.exists() else 0
    if download.size and there >= download.size:
        return
    headers = {"User-Agent": "turnkey.hpc bundle"}
    if there:
        headers["Range"] = f"bytes={there}-"
    with open_url(Request(download.url, headers=headers)) as answer:
        continued = there and answer.status == 206
        if continued:
            progress.add(there)
        with part.open("ab" if continued else "wb") as stream:
            while chunk := answer.read(CHUNK):
                stream.write(chunk)
                progress.add(len(chunk))
        expected = answer.headers.get("Content-Length")
        received = part.stat().st_size - (there if continued else 0)
        if expected is not None and received < int(expected):
            raise OSError(f"the connection ended after {received} of {expected} bytes")


def fetch(download: Download, open_url: Open, progress: Progress, pause: Callable[[float], None] = time.sleep) -> bool:
    """Bring one file; return whether it was not there."""
    path = download.path
    if path.is_file() and not path.is_symlink():
        same_size = not download.size or path.stat().st_size == download.size
        if same_size and (not download.sha256 or digest(path) == download.sha256):
            return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    url = urlsplit(download.url)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if url.scheme in ("", "file"):
                _copy(Path(url.path if url.scheme else download.url), part)
            else:
                _receive(download, part, open_url, progress)
            found = digest(part)
            if download.sha256 and found != download.sha256:
                part.unlink()
                raise OSError(f"its sha256 is {found}, not {download.sha256}")
            part.replace(path)
            return True
        except (OSError, HTTPException, URLError) as error:
            if isinstance(error, HTTPError) and error.code == 416:
                # There is nothing after what is there, which was not the right thing.
                part.unlink(missing_ok=True)
            final = (isinstance(error, HTTPError) and error.code in FINAL) or url.scheme in ("", "file")
            if final or attempt == ATTEMPTS:
                raise HpcError(f"{download.url}: {error}") from error
            # Others ask at the same time: they should not come back at the same time.
            pause(min(30.0, 2.0**attempt) * (0.5 + random.random() / 2))
    raise HpcError(f"{download.url}: no attempt was made.")


def fetch_all(
    downloads: Iterable[Download],
    open_url: Open,
    say: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
    workers: int = WORKERS,
) -> int:
    """Bring all files; return how many were not there. One that fails doesn't keep the others from coming."""
    wanted = list({download.path: download for download in downloads}.values())
    # The largest first, so that no long one is left alone at the end.
    wanted.sort(key=lambda one: -one.size)
    progress = Progress(sum(one.size for one in wanted), say)
    failures: list[str] = []

    def one(download: Download) -> bool:
        try:
            return fetch(download, open_url, progress, pause)
        except (HpcError, OSError) as error:
            failures.append(str(error))
            return False

    with ThreadPoolExecutor(max_workers=workers) as pool:
        fetched = sum(pool.map(one, wanted))
    if failures:
        raise HpcError(
            f"Not everything could be fetched: {join_problems(sorted(failures)[:20])}",
            "run again; what is there is kept, and what was cut off is continued.",
        )
    return fetched
