# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import http.server
import threading
from urllib.parse import urlsplit

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _apt_sources
from ansible_collections.turnkey.hpc.plugins.module_utils._apt_sources import Source

LIST = """# deb http://old.example/debian bookworm main
deb [arch=amd64 signed-by=/x.gpg] http://a.example/debian bookworm main contrib
deb-src http://a.example/debian bookworm main
  deb https://b.example/flat ./
deb http://c.example
"""
DEB822 = """# A comment
Types: deb deb-src
URIs: http://a.example/debian
 http://b.example/debian
Suites: trixie trixie-updates
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: trixie

Types: deb-src
URIs: http://source.example/debian
Suites: trixie
"""


def test_sources_of_packages_are_read_from_lines():
    assert _apt_sources.parse_list(LIST) == [
        Source("http://a.example/debian", "bookworm"),
        Source("https://b.example/flat", "./"),
    ]


def test_sources_of_packages_are_read_from_stanzas():
    hosts = ("a", "b")
    assert _apt_sources.parse_deb822(DEB822) == [
        Source(f"http://{host}.example/debian", suite) for host in hosts for suite in ("trixie", "trixie-updates")
    ]


def test_each_address_is_asked_once_whatever_file_names_it(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(LIST)
    (tmp_path / "sources.list.d/x.sources").write_text(DEB822)
    (tmp_path / "sources.list.d/y.list.save").write_text("deb http://z.example/ x main\n")
    found = [source.uri for source in _apt_sources.read_sources(str(tmp_path))]
    assert found == ["http://a.example/debian", "https://b.example/flat", "http://b.example/debian"]


PROXIES = """Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://proxy:3142/";
Acquire::http::Proxy::direct.example "DIRECT";
Acquire::https::Proxy::b.example "http://other:8080";
APT::Architecture "amd64";
"""


@pytest.mark.parametrize(
    ("uri", "proxy"),
    [
        ("http://a.example/debian", "http://proxy:3142/"),
        ("http://direct.example/debian", ""),
        ("https://b.example/debian", "http://other:8080"),
        ("https://a.example/debian", "http://proxy:3142/"),
    ],
)
def test_the_proxy_is_the_one_that_apt_takes(uri, proxy):
    proxies = _apt_sources.parse_proxies(PROXIES)
    assert _apt_sources.proxy_of(urlsplit(uri), proxies) == proxy


def test_a_proxy_that_apt_finds_out_itself_is_not_guessed():
    proxies = _apt_sources.parse_proxies('Acquire::http::Proxy-Auto-Detect "/usr/bin/auto-apt-proxy";\n')
    source = Source("http://a.example/debian", "trixie")
    assert _apt_sources.check_source(source, proxies) == ("skipped", "")
    assert _apt_sources.asked_host(source, proxies) == ""


@pytest.fixture
def server():
    """A web server that answers what stands in ``answers``, and keeps what it was asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.server.asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(self.server.answers.get(self.path, 404))
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.answers, running.asked = {}, []
        running.url = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/debian/dists/trixie/InRelease", 200, "ok"),
        ("/debian/dists/trixie/Release", 200, "ok"),
        ("/debian/dists/trixie/InRelease", 401, "ok"),
        ("/debian/dists/trixie/InRelease", 503, "answer"),
        ("/elsewhere", 200, "answer"),
    ],
)
def test_a_source_is_well_if_its_index_is_there(server, path, status, expected):
    server.answers = {path: status}
    state, detail = _apt_sources.check_source(Source(f"{server.url}/debian/", "trixie"), {})
    assert state == expected
    assert bool(detail) == (expected == "answer")


def test_a_proxy_is_asked_for_the_whole_address(server):
    server.answers = {"http://a.example/debian/dists/trixie/InRelease": 200}
    source = Source("http://a.example/debian", "trixie")
    assert _apt_sources.check_source(source, {"http": server.url}) == ("ok", "")
    assert _apt_sources.asked_host(source, {"http": server.url}) == "127.0.0.1"


def test_a_password_in_the_address_is_sent_and_not_shown(server):
    url = server.url.replace("//", "//joe:geheim@")
    state, detail = _apt_sources.check_source(Source(f"{url}/debian", "trixie"), {})
    assert (state, server.asked[0][1]) == ("answer", "Basic am9lOmdlaGVpbQ==")
    assert "geheim" not in detail


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://no-such-host.invalid/debian", ("dns", "no-such-host.invalid")),
        ("http://127.0.0.1:1/debian", ("connect", "127.0.0.1 port 1: Connection refused")),
        ("cdrom:[x]/", ("skipped", "")),
        ("file:/does/not/exist", ("answer", "there is no directory /does/not/exist/dists/trixie")),
    ],
)
def test_what_is_wrong_with_a_source_is_told(uri, expected):
    assert _apt_sources.check_source(Source(uri, "trixie"), {}) == expected
