# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.fetch import Download, Progress, fetch_all, opener
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError

CONTENT = bytes(range(256)) * 4096
SIZE = len(CONTENT)
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT at every path, after what ``faults`` says is over; notes each request's path and range."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults = []
        self.asked = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range", "")))
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if isinstance(fault, int):
            self.send_error(fault)
            return
        wanted = self.headers.get("Range") if fault != "whole" else None
        start = int(wanted[6:-1]) if wanted else 0
        content = CONTENT[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(
            content[: len(content) // 2] if fault == "cut" else b"x" * len(content) if fault == "wrong" else content
        )

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def server():
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def bring(server, tmp_path):
    def call(*names, sha256=SHA, size=SIZE):
        url = f"http://127.0.0.1:{server.server_address[1]}"
        wanted = [Download(f"{url}/{name}", tmp_path / name, sha256, size) for name in names]
        return fetch_all(wanted, opener({}), lambda text: None, pause=lambda seconds: None)

    return call


def test_what_is_there_is_not_fetched_again(bring, server):
    assert bring("a", "b") == 2
    assert bring("a", "b") == 0
    assert len(server.asked) == 2


def test_a_file_of_another_content_is_fetched_again(bring, tmp_path):
    (tmp_path / "a").write_bytes(b"y" * len(CONTENT))
    assert bring("a") == 1
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_download_that_was_cut_off_is_continued_where_it_ended(bring, server, tmp_path):
    server.faults = ["cut"]
    assert bring("a") == 1
    assert server.asked == [("/a", ""), ("/a", f"bytes={len(CONTENT) // 2}-")]
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_run_continues_what_an_earlier_one_left(bring, server, tmp_path):
    (tmp_path / ".a.part").write_bytes(CONTENT[:1000])
    assert bring("a") == 1
    assert server.asked == [("/a", "bytes=1000-")]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_server_that_is_busy_is_asked_again(bring, server):
    server.faults = [503, 429, 500]
    assert bring("a") == 1
    assert len(server.asked) == 4


def test_what_the_server_has_not_got_is_asked_for_once(bring, server):
    server.faults = [404]
    with pytest.raises(HpcError, match="404"):
        bring("a")
    assert len(server.asked) == 1


def test_a_content_that_is_not_the_expected_one_never_gets_its_name(bring, server, tmp_path):
    server.faults = ["wrong"] * 5
    with pytest.raises(HpcError, match="its sha256 is"):
        bring("a")
    assert not (tmp_path / "a").exists()


def test_one_that_fails_does_not_keep_the_others_from_coming(bring, server, tmp_path):
    server.faults = [404]
    with pytest.raises(HpcError, match="Not everything could be fetched"):
        bring("a", "b", "c")
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) in (
        ["a", "b"],
        ["a", "c"],
        ["b", "c"],
    )


def test_a_server_that_knows_no_ranges_sends_the_file_from_its_beginning(bring, server, tmp_path):
    (tmp_path / ".a.part").write_bytes(b"z" * 1000)
    server.faults = ["whole"]
    assert bring("a") == 1
    assert server.asked == [("/a", "bytes=1000-")]
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_file_of_this_machine_is_copied(tmp_path):
    (tmp_path / "here").write_bytes(CONTENT)
    wanted = [
        Download(str(tmp_path / "here"), tmp_path / "a", SHA, SIZE),
        Download(f"file://{tmp_path}/here", tmp_path / "b"),
    ]
    assert fetch_all(wanted, opener({}), lambda text: None) == 2
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == CONTENT


@pytest.mark.parametrize("environment", [False, True])
def test_the_proxy_is_that_of_apt_unless_the_environment_has_one(server, tmp_path, monkeypatch, environment):
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    ours, other = f"http://127.0.0.1:{server.server_address[1]}", "http://127.0.0.1:9"
    if environment:
        monkeypatch.setenv("http_proxy", ours)
    wanted = [Download("http://mirror.internal/a", tmp_path / "a", SHA, SIZE)]
    assert fetch_all(wanted, opener({"http": other if environment else ours}), lambda text: None, lambda _s: None) == 1
    assert server.asked == [("http://mirror.internal/a", "")]


def test_progress_is_told_every_five_seconds():
    said, clock = [], iter([0.0, 0.0, 4.9, 5.0, 5.0, 9.9, 10.0, 10.0])
    progress = Progress(10_000_000, said.append, lambda: next(clock))
    for _part in range(4):
        progress.add(1_000_000)
    assert said == ["2 of 10 MB, 0.4 MB/s", "4 of 10 MB, 0.4 MB/s"]
