# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi import runner


@pytest.fixture
def run(tmp_path):
    """Return what runs a command as the runner does, in a process of its own, and returns the process and its place."""
    place = tmp_path / "1"
    place.mkdir()

    def start(*argv, **changes):
        plan = {
            "scheduler": "none",
            "argv": list(argv),
            "cwd": "/",
            "env": {},
            "seconds": 0,
            "hosts": 1,
            "ranks_per_host": 1,
            "hostfile": str(place / "all"),
            "queue": str(place / "queue"),
            "output_bytes": 1000,
            **changes,
        }
        (place / "all").write_text("localhost\n")
        (place / "queue").write_text("")
        (place / "plan.json").write_text(json.dumps(plan))
        # Nothing answers here as a node's SSH server does, so the process believes that all hosts do.
        code = f"import sys; sys.path.insert(0, {str(Path(runner.__file__).parent)!r}); import runner; "
        code += "runner.answering = lambda hosts, wanted: hosts[:wanted]; sys.exit(runner.main())"
        environment = {**os.environ, "TURNKEY_MPI_RUN": str(place)}
        return subprocess.Popen([sys.executable, "-c", code], env=environment), place

    return start


def result(place):
    return json.loads((place / "result.json").read_text())


def wait_for(place, text):
    end = time.monotonic() + 20
    while text not in (place / "output").read_text() if (place / "output").exists() else True:
        assert time.monotonic() < end
        time.sleep(0.05)  # poll interval


@pytest.mark.parametrize(("code", "state"), [(0, "completed"), (3, "failed")])
def test_output_exit_code_and_hosts_are_written_down(run, code, state):
    process, place = run("sh", "-c", f"echo $COLOUR; echo err >&2; exit {code}", env={"COLOUR": "green"})
    assert process.wait(30) == code
    assert (place / "output").read_text() == "green\nerr\n"
    found = result(place)
    assert (found["state"], found["exit_code"], found["hosts"]) == (state, code, ["localhost"])
    assert found["ended"] >= found["started"]


def test_a_time_limit_ends_a_run_with_its_children(run):
    process, place = run("sh", "-c", "echo begun; sleep 60 & wait # poll interval", seconds=1)
    assert process.wait(30) == 124
    assert result(place)["state"] == "timeout"
    assert (place / "output").read_text() == "begun\n"


def test_a_run_that_is_stopped_is_cancelled(run):
    process, place = run("sh", "-c", "echo begun; exec tail -f /dev/null")
    wait_for(place, "begun")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert result(place)["state"] == "cancelled"


def test_output_without_end_is_cut(run):
    process, place = run("sh", "-c", "yes | head -c 100000")
    assert process.wait(30) == 0
    text = (place / "output").read_text()
    assert len(text) < 1100
    assert "is too long and is not kept" in text
    assert result(place)["truncated"] is True


def test_a_program_that_can_not_be_started_is_a_failed_run(run):
    process, place = run("/nonexistent")
    assert process.wait(30) == 1
    assert result(place)["state"] == "failed"
    assert "/nonexistent" in (place / "output").read_text()


def test_too_few_hosts_is_a_failed_run_that_says_so(run):
    process, place = run("true", hosts=2)
    assert process.wait(30) == 1
    assert "2 hosts are wanted, and 1 answer now" in (place / "output").read_text()


def test_without_a_scheduler_runs_wait_for_each_other(run, tmp_path):
    process, place = run("true")
    process.wait(30)
    with (place / "queue").open() as queue:
        fcntl.flock(queue, fcntl.LOCK_EX)
        process, place = run("true")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        assert result(place)["state"] == "queued"
        fcntl.flock(queue, fcntl.LOCK_UN)
    assert process.wait(30) == 0


def test_no_more_hosts_are_asked_than_it_takes_and_those_that_are_down_are_left_out():
    asked, lock = [], threading.Lock()

    def probe(host):
        with lock:
            asked.append(host)
        return host not in ("n1", "n3")

    hosts = [f"n{number}" for number in range(1, 1001)]
    assert runner.answering(hosts, 3, probe) == ["n2", "n4", "n5"]
    assert len(asked) == runner.PROBES
    assert runner.answering(["n1", "n2", "n3"], 2, probe) == ["n2"]


def test_a_host_that_accepts_connections_and_says_nothing_is_down(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(runner, "SSH_PORT", server.getsockname()[1])
        monkeypatch.setattr(runner, "ANSWER_SECONDS", 0.2)
        assert not runner.answers("127.0.0.1")
    assert not runner.answers("127.0.0.1")


def test_hosts_are_read_from_a_host_file():
    assert runner.parse_hostfile("# ours\nnode1 slots=2\n\nnode2 # b\nnode1\n") == ["node1", "node2"]


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("COMPLETING NodeDown\n", "lost"),
        ("NODE_FAIL None\n", "lost"),
        ("TIMEOUT TimeLimit\n", "timeout"),
        ("COMPLETING None\n", "cancelled"),
        ("", "cancelled"),
    ],
)
def test_slurm_says_why_it_ends_a_job(said, state):
    assert runner.why_stopped(lambda argv, **more: SimpleNamespace(stdout=said)) == state


def test_a_result_is_replaced_in_place(tmp_path):
    path = tmp_path / "result.json"
    path.touch()
    before = path.stat().st_ino
    runner.write_result(path, {"state": "completed", "text": "x" * 100})
    runner.write_result(path, {"state": "failed"})
    assert json.loads(path.read_text()) == {"state": "failed"}
    assert path.stat().st_ino == before


def test_a_run_in_a_strange_place_is_refused(monkeypatch):
    monkeypatch.setenv("TURNKEY_MPI_RUN", "relative")
    assert runner.main() == 2
