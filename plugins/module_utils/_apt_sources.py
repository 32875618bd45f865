# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where APT would get packages from, and whether it would get an answer. Nothing is fetched and nothing written."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

__all__ = [
    "Source",
    "asked_host",
    "check_source",
    "parse_deb822",
    "parse_list",
    "parse_proxies",
    "proxy_of",
    "read_sources",
]

_SCHEMES = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Source:
    """One source of packages: its address, and below it the index that APT reads first."""

    uri: str
    suite: str

    @property
    def index(self) -> str:
        """The directory of the index."""
        base = self.uri.rstrip("/")
        # A suite that ends with "/" is a directory with everything in it.
        return f"{base}/{self.suite}".rstrip("/") if self.suite.endswith("/") else f"{base}/dists/{self.suite}"


def parse_list(text: str) -> list[Source]:
    """Return the sources of packages in a file of one line a source (``deb [options] URI SUITE ...``)."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)", line)
        if match:
            found.append(Source(match[1], match[2]))
    return found


def parse_deb822(text: str) -> list[Source]:
    """Return the sources of packages in a file of stanzas (``URIs: ...``)."""
    found = []
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", lines):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t"):
                fields[key] = f"{fields.get(key, '')} {line.strip()}"
            else:
                name, _separator, value = line.partition(":")
                key = name.strip().lower()
                fields[key] = value.strip()
        enabled = fields.get("enabled", "yes").strip().lower() not in ("no", "false", "without", "off", "disable", "0")
        if enabled and "deb" in fields.get("types", "").split():
            found += [
                Source(uri, suite)
                for uri in fields.get("uris", "").split()
                for suite in fields.get("suites", "").split()
            ]
    return found


def read_sources(directory: str = "/etc/apt") -> list[Source]:
    """Return the first source of packages at each address in the files that APT reads."""
    top = Path(directory)
    found: list[Source] = []
    for path in (top / "sources.list", *sorted(top.glob("sources.list.d/*"))):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if path.suffix == ".list":
            found += parse_list(text)
        elif path.suffix == ".sources":
            found += parse_deb822(text)
    first: dict[str, Source] = {}
    for source in found:
        first.setdefault(source.uri.rstrip("/"), source)
    return list(first.values())


def parse_proxies(text: str) -> dict[str, str]:
    """Return the proxies in the output of ``apt-config dump``, by scheme or ``scheme::host``; ``auto`` if found out."""
    proxies: dict[str, str] = {}
    for line in text.splitlines():
        match = re.match(r'Acquire::(\S+) "(.*)";$', line.strip())
        if not match or not match[2]:
            continue
        key = match[1].lower()
        if key in ("http::proxy-auto-detect", "http::proxyautodetect", "https::proxy-auto-detect"):
            proxies["auto"] = match[2]
            continue
        option = re.match(r"(https?)::proxy(?:::(.+))?$", key)
        if option:
            proxies[f"{option[1]}::{option[2]}" if option[2] else option[1]] = match[2]
    return proxies


def proxy_of(url: SplitResult, proxies: Mapping[str, str]) -> str:
    """Return the proxy that APT uses for ``url``, or nothing."""
    proxy = proxies.get(f"{url.scheme}::{url.hostname}") or proxies.get(url.scheme) or ""
    if not proxy and url.scheme == "https":
        # APT falls back on the other scheme's proxy.
        proxy = proxies.get(f"http::{url.hostname}") or proxies.get("http") or ""
    return "" if proxy.upper() == "DIRECT" else proxy


def asked_host(source: Source, proxies: Mapping[str, str]) -> str:
    """Return the name of the host that APT asks: the source's, or its proxy's. Empty if that can't be told."""
    url = urlsplit(source.index)
    if url.scheme not in _SCHEMES or "auto" in proxies:
        return ""
    return urlsplit(proxy_of(url, proxies) or source.index).hostname or ""


def check_source(source: Source, proxies: Mapping[str, str], seconds: float = 2.0) -> tuple[str, str]:
    """Return ``(state, detail)``: ``ok``, ``dns`` (a name has no address), ``connect``, ``answer`` or ``skipped``."""
    # Slow to import, and mostly not needed.
    from http.client import HTTPException
    from ssl import SSLError

    url = urlsplit(source.index)
    if url.scheme == "file":
        missing = not Path(unquote(url.path)).is_dir()
        return ("answer", f"there is no directory {unquote(url.path)}") if missing else ("ok", "")
    if url.scheme not in _SCHEMES or not url.hostname or "auto" in proxies:
        return "skipped", ""
    proxy = proxy_of(url, proxies)
    via = urlsplit(proxy) if proxy else url
    host, port = via.hostname or "", via.port or _SCHEMES.get(via.scheme, 80)
    through = f" (proxy of {url.hostname})" if proxy else ""
    try:
        address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return "dns", f"{host}{through}"
    try:
        return _ask(url, via if proxy else None, host, port, seconds)
    except SSLError:
        # APT may have certificates of its own for it: it answers, that is enough.
        return "ok", ""
    except (OSError, HTTPException) as failure:
        numeric = address[0][4][0]
        shown = host if host == numeric else f"{host} [{numeric}]"
        return "connect", f"{shown} port {port}{through}: {_reason(failure)}"


def _reason(failure: Exception) -> str:
    if isinstance(failure, TimeoutError):
        return "no answer"
    return (getattr(failure, "strerror", None) or str(failure) or type(failure).__name__).strip()


def _ask(url: SplitResult, proxy: SplitResult | None, host: str, port: int, seconds: float) -> tuple[str, str]:
    """Ask for the index, under both of its names."""
    from http.client import HTTPConnection, HTTPSConnection

    status = 0
    for name in ("InRelease", "Release"):
        path = f"{url.path}/{name}"
        headers = {"User-Agent": "turnkey.hpc preflight", "Cache-Control": "max-age=0"}
        secure = url.scheme == "https"
        connection: HTTPConnection
        if secure:
            connection = HTTPSConnection(host, port, timeout=seconds)
            if proxy:
                connection.set_tunnel(url.hostname or "", url.port or 443, _credentials(proxy, "Proxy-Authorization"))
        else:
            connection = HTTPConnection(host, port, timeout=seconds)
            if proxy:
                headers.update(_credentials(proxy, "Proxy-Authorization"))
                path = f"http://{url.netloc.rpartition('@')[2]}{path}"
        headers.update(_credentials(url, "Authorization"))
        try:
            connection.request("HEAD", path, headers=headers)
            status = connection.getresponse().status
        finally:
            connection.close()
        if status != 404:
            break
    # The password of a source that wants one (401) is not for everyone's eyes, so it may be there.
    if status < 400 or status == 401:
        return "ok", ""
    who = f"the proxy {host} or {url.hostname}" if proxy else url.hostname
    return "answer", f"{who} answers {status} to {url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}/InRelease"


def _credentials(url: SplitResult, header: str) -> dict[str, str]:
    if not url.username:
        return {}
    pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return {header: f"Basic {base64.b64encode(pair.encode()).decode()}"}
