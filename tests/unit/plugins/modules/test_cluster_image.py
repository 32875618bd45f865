# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import socketserver
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.docker_image import START
from ansible_collections.turnkey.hpc.plugins.modules import cluster_image

pytest.importorskip("docker")

IMAGE = {"Id": "sha256:1", "Size": 412_345_678, "RepoTags": ["turnkey/node:debian12"]}
INSPECTED = {"RootFS": {"Layers": ["sha256:2"]}, "Config": {"Cmd": START, "Entrypoint": None}}
BUILD = "build-1800000000000"
OURS = {"Id": "c1", "Names": [f"/{BUILD}"], "Labels": {"turnkey.build": "12"}}


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """An engine that answers the questions of check mode and refuses everything that would change it."""

    daemon_threads = True

    def __init__(self, path):
        self.images, self.containers, self.asked = [], [], []
        super().__init__(str(path), Answer)


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlsplit(self.path)
        name = url.path.rsplit("/v1.", 1)[-1].partition("/")[2]
        if name == "images/json":
            filters = json.loads(parse_qs(url.query)["filters"][0])
            self.server.asked.append(filters["label"])
        rows = {"images/json": self.server.images, "containers/json": self.server.containers}
        if name.startswith("images/") and name.endswith("/json") and name not in rows:
            rows[name] = INSPECTED
        self.reply(200, rows.get(name, {"ApiVersion": "1.45"}))

    def do_POST(self):
        self.reply(500, {"message": f"{self.path} would change something"})

    do_DELETE = do_PUT = do_POST

    def reply(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        """Print nothing: the module's standard output is read."""


@pytest.fixture
def engine(monkeypatch):
    with tempfile.TemporaryDirectory() as folder:  # tmp_path may be too long for a socket
        monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/engine")
        for name in ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
            monkeypatch.delenv(name, raising=False)
        with Engine(Path(folder) / "engine") as one:
            threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            yield one
            one.shutdown()


def run(capsys, **arguments):
    given = {"name": "turnkey/node:debian12", "release": "12", "_ansible_check_mode": True, **arguments}
    with patch_module_args(given), pytest.raises(SystemExit):
        cluster_image.main()
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("state", "images", "containers", "changed", "exists"),
    [
        ("started", [IMAGE], [], False, True),
        ("started", [], [], True, False),
        ("bootstrapped", [IMAGE], [], False, True),
        ("bootstrapped", [], [], True, True),
        ("published", [], [OURS], True, True),
        ("absent", [], [OURS], True, False),
        ("absent", [IMAGE], [], False, False),
    ],
)
def test_check_mode_tells_what_would_be_done_and_does_nothing(
    capsys, engine, state, images, containers, changed, exists
):
    engine.images, engine.containers = images, containers
    result = run(capsys, state=state, inputs="abc", build=BUILD)
    assert "failed" not in result, result
    assert (result["changed"], result["exists"], result["build"]) == (changed, exists, BUILD)


def test_an_image_is_described_by_its_id_and_its_size(capsys, engine):
    engine.images = [IMAGE]
    result = run(capsys)
    assert (result["image_id"], result["size_mb"]) == ("sha256:1", 412)


def test_without_a_hash_the_image_is_looked_for_by_the_hash_of_files_and_values(capsys, engine, tmp_path):
    (tmp_path / "install.yml").write_text("---\n")

    def inputs(value):
        return run(capsys, input_paths=[str(tmp_path)], input_values=[value])["inputs"]

    first, second = inputs("a"), inputs("b")
    (tmp_path / "install.yml").write_text("--- # changed\n")
    third = inputs("a")
    assert len({first, second, third}) == 3
    assert ["turnkey.image=node", f"turnkey.inputs={first}"] in engine.asked


def test_an_overlay_entry_is_part_of_the_hash_and_so_is_its_executable_bit(capsys, engine):
    entry = {"path": "/usr/local/sbin/x", "content": "#!/bin/sh\n"}
    overlays = [[], [entry], [{**entry, "executable": True}], [{"path": entry["path"], "link": "/bin/true"}]]
    assert len({run(capsys, overlay=overlay)["inputs"] for overlay in overlays}) == len(overlays)


def test_an_image_that_is_there_under_its_name_is_left_alone(capsys, engine):
    engine.images = [{**IMAGE, "RepoTags": ["turnkey/node:debian12", "turnkey/bootstrap:debian12"]}]
    result = run(capsys, _ansible_check_mode=False)
    assert (result["changed"], result["exists"]) == (False, True), result


def test_programs_that_are_laid_over_an_image_can_be_run():
    program = {"path": "/usr/local/sbin/x", "content": "", "link": None, "executable": True}
    assert [entry.mode for entry in cluster_image.overlay_of([program, {**program, "executable": False}])] == [
        0o755,
        0o644,
    ]


def test_a_new_build_is_named_by_the_end_of_its_time(capsys, engine):
    now = time.time()
    name = run(capsys, hours=2)["build"]
    assert now - 1 <= int(name.removeprefix("build-")) / 1000 - 7200 <= time.time()


def test_a_refusal_of_the_engine_is_one_clear_message(capsys, engine):
    engine.containers = [OURS]
    result = run(capsys, state="absent", build=BUILD, _ansible_check_mode=False)
    assert result["failed"]
    assert result["msg"].startswith("could not make the image turnkey/node:debian12: ")
    assert "would change something" in result["msg"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"state": "published", "build": BUILD}, "inputs"),
        ({"state": "published", "inputs": "abc"}, "build"),
        ({"state": "absent"}, "build"),
        ({"source": "floppy"}, "floppy"),
        ({"release": "11"}, "'11' is not a Debian release this collection knows. Remedy: Use one of 12, 13."),
        ({"overlay": [{"path": "etc/motd"}]}, "'etc/motd' is not an absolute path"),
        ({"overlay": [{"content": "x"}]}, "path"),
    ],
    ids=[
        "no hash",
        "no build to publish",
        "no build to remove",
        "source",
        "release",
        "overlay path",
        "no overlay path",
    ],
)
def test_wrong_input_is_one_clear_message_and_the_engine_is_not_asked(capsys, engine, arguments, text):
    result = run(capsys, **arguments)
    assert result["failed"]
    assert text in result["msg"]
    assert engine.asked == []


def test_an_engine_that_does_not_answer_is_one_clear_message(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    result = run(capsys)
    assert result["failed"]
    assert f"{tmp_path}/none" in result["msg"]
    assert "Traceback" not in result["msg"]


@pytest.fixture
def disk(tmp_path):
    """Return the directory of a disk image that was made from the inputs ``abc``."""
    directory = tmp_path / "turnkey-node-debian12"
    directory.mkdir()
    (directory / "image.json").write_text(json.dumps({"format": 1, "hash": "abc"}))
    (directory / "disk.qcow2").write_bytes(bytes(3_000_000))
    return directory


@pytest.mark.parametrize(("inputs", "changed", "exists"), [("abc", False, True), ("def", True, False)])
def test_a_disk_image_is_known_by_the_hash_that_it_carries(capsys, engine, disk, inputs, changed, exists):
    engine.images = [IMAGE]  # an image for containers doesn't count
    result = run(capsys, format="qcow2", directory=str(disk), inputs=inputs, _ansible_check_mode=not exists)
    assert "failed" not in result, result
    assert (result["changed"], result["exists"]) == (changed, exists)
    assert result.get("image_id", str(disk)) == str(disk)
    assert result.get("size_mb", 3) == 3


def test_what_is_laid_over_a_disk_image_and_its_size_are_part_of_its_hash(capsys, engine, tmp_path):
    def inputs(**more):
        return run(capsys, format="qcow2", directory=str(tmp_path), **more)["inputs"]

    assert len({inputs(), inputs(disk_gb=9), inputs(disk_overlay=[{"path": "/etc/fstab", "content": ""}])}) == 3


def test_a_disk_image_needs_a_directory(capsys, engine):
    assert "directory" in run(capsys, format="qcow2")["msg"]
