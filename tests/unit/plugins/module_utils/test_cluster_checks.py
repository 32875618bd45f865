# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _cluster_checks as checks


def context(run, tmp_path="/nonexistent", hosts=("head", "n1", "n2"), **more):
    settings = {
        "hosts": hosts,
        "mpi_hosts": hosts[1:],
        "shared_dir": str(tmp_path),
        "hostfile": "/f",
        "timeout_seconds": 60,
    }
    result = checks.Context(run=run, **{**settings, **more})
    result.deadline = result.clock() + 60
    return result


class Cluster:
    """Hosts that answer like real ones, and remember what they were asked."""

    def __init__(self, broken=(), names=None, onward_broken=()):
        self.broken, self.onward_broken, self.names, self.asked = broken, onward_broken, names or {}, []

    def run(self, argv, stdin, timeout):
        self.asked.append(argv)
        host, remote = argv[-2], argv[-1]
        if host in self.broken:
            return 255, "", "Warning: noise\nPermission denied (publickey).\n"
        if remote.startswith("cd "):
            done = subprocess.run(["sh", "-c", remote], input=stdin, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout, done.stderr
        if host in self.onward_broken:
            return 255, f"{host}\n", "Host key verification failed.\n"
        following = remote.split()[-3]
        return 0, f"{self.names.get(host, host)}\n{self.names.get(following, following)}\n", ""


def test_the_mesh_is_walked_in_a_ring_at_a_cost_that_is_linear():
    cluster = Cluster()
    detail = checks.ssh_mesh(context(cluster.run))
    assert detail == {"hosts": ["head", "n1", "n2"], "connections": 6, "failures": []}
    assert sorted((argv[-2], argv[-1].split()[-3]) for argv in cluster.asked) == [
        ("head", "n1"),
        ("n1", "n2"),
        ("n2", "head"),
    ]


def test_the_mesh_is_walked_without_prompts_and_with_host_keys_checked():
    cluster = Cluster()
    checks.ssh_mesh(context(cluster.run))
    for argv in cluster.asked:
        for text in (" ".join(argv[:-2]), argv[-1]):
            assert "BatchMode=yes" in text
            assert "StrictHostKeyChecking=yes" in text


@pytest.mark.parametrize(
    ("cluster", "failures"),
    [
        (Cluster(broken=["n1"]), ["n1: Warning: noise / Permission denied (publickey)."]),
        (Cluster(onward_broken=["n2"]), ["n2 to head: Host key verification failed."]),
        (
            Cluster(names={"n1": "impostor"}),
            [
                "head to n1: the host that answers calls itself impostor",
                "n1: the host that answers calls itself impostor",
            ],
        ),
        (Cluster(names={"n1": "n1.lab.internal"}), []),
    ],
)
def test_a_broken_link_is_named_with_what_ssh_said(cluster, failures):
    assert checks.ssh_mesh(context(cluster.run))["failures"] == failures


def test_a_shared_directory_is_read_and_written_on_both_sides(tmp_path):
    detail = checks.shared_directory(context(Cluster().run, tmp_path))
    assert detail == {"path": str(tmp_path), "hosts": ["head", "n1", "n2"], "failures": []}


def test_nothing_is_left_in_the_shared_directory(tmp_path):
    checks.shared_directory(context(Cluster(broken=["n1"]).run, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_node_with_another_directory_at_that_path_is_found(tmp_path):
    def run(argv, stdin, timeout):
        return 1, "", "sh: 1: cd: can't cd to /shared/.turnkey-verify-x\n"

    failures = checks.shared_directory(context(run, tmp_path))["failures"]
    assert failures[0] == "head: sh: 1: cd: can't cd to /shared/.turnkey-verify-x"
    assert len(failures) == 3


def test_a_node_that_reads_stale_data_and_loses_its_own_is_found(tmp_path):
    def run(argv, stdin, timeout):
        return 0, "old", ""

    failures = checks.shared_directory(context(run, tmp_path, hosts=("n1",)))["failures"]
    assert len(failures) == 2
    assert "reads something else" in failures[0]
    assert "can't be read here" in failures[1]


def test_a_shared_directory_that_is_missing_is_a_failed_check():
    (result,) = checks.run_checks(["shared_directory"], context(Cluster().run))
    assert not result["ok"]
    assert "/nonexistent" in result["detail"]["failures"][0]


def mpi(out, rc=0, err="", compiler=(0, "", "")):
    def run(argv, stdin, timeout):
        if argv[0] == "mpicc":
            assert "MPI_Init" in Path(argv[-1]).read_text(encoding="ascii")
            return compiler
        assert argv[:-1] == ["mpirun", "--hostfile", "/f", "--map-by", "node", "-n", "2"]
        return rc, out, err

    return run


TWO_RANKS = '{"rank": 0, "host": "n1"}\n{"rank": 1, "host": "n2"}\n{"sum": 1}\n'


def test_an_mpi_job_reports_rank_and_host_of_every_rank(tmp_path):
    detail = checks.mpi_hello(context(mpi(TWO_RANKS), tmp_path))
    assert detail == {"ranks": [{"rank": 0, "host": "n1"}, {"rank": 1, "host": "n2"}], "failures": []}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("run", "failure"),
    [
        (mpi(TWO_RANKS.replace("n2", "n1")), "n2: has no rank"),
        (mpi(TWO_RANKS.replace('"sum": 1', '"sum": 7')), "add up to 7 instead of 1"),
        (mpi("", rc=213, err="There are not enough slots available\n"), "mpirun: There are not enough slots available"),
        (mpi("", compiler=(127, "", "mpicc: No such file or directory")), "mpicc: mpicc: No such file or directory"),
    ],
)
def test_an_mpi_job_that_goes_wrong_says_how(tmp_path, run, failure):
    (result,) = checks.run_checks(["mpi_hello"], context(run, tmp_path))
    assert not result["ok"]
    assert failure in result["detail"]["failures"][0]


def test_what_mpirun_complains_about_is_kept(tmp_path):
    detail = checks.mpi_hello(context(mpi(TWO_RANKS, err="a warning\n"), tmp_path))
    assert detail["stderr"] == "a warning"


def test_an_mpi_job_needs_compute_nodes(tmp_path):
    (result,) = checks.run_checks(["mpi_hello"], context(mpi(""), tmp_path, mpi_hosts=()))
    assert result["detail"]["failures"] == ["There are no compute nodes to run an MPI job on."]


def test_a_failed_check_does_not_keep_the_others_from_running():
    def broken(context):
        raise ValueError("odd")

    table = {"a": broken, "b": lambda context: {"seen": 1}}
    results = checks.run_checks(["a", "b"], context(None), table)
    assert [(entry["name"], entry["ok"]) for entry in results] == [("a", False), ("b", True)]
    assert results[0]["detail"] == {"failures": ["ValueError: odd"]}
    assert set(results[1]) == {"name", "ok", "seconds", "detail"}


def test_every_check_has_a_deadline_of_its_own():
    now = [0.0]

    def slow(context):
        first = context.command(["true"])
        now[0] += 100
        return {"failures": [context.command(["true"])[2]], "first": first}

    runner = context(lambda argv, stdin, timeout: (0, "", str(timeout)), clock=lambda: now[0], timeout_seconds=30)
    for result in checks.run_checks(["slow", "slow"], runner, {"slow": slow}):
        assert result["detail"]["first"] == (0, "", "30.0")
        assert "no time left of the 30 seconds" in result["detail"]["failures"][0]
        assert result["seconds"] == 100.0


def test_a_command_that_takes_too_long_is_ended_with_its_children():
    start = time.monotonic()
    rc, out, err = checks.run_command(["sh", "-c", "echo begun; sleep 60 & wait"], None, 0.5)
    assert (rc, out) == (124, "begun\n")
    assert "did not end within" in err
    assert time.monotonic() - start < 10


def test_a_command_that_is_not_installed_is_an_answer():
    rc, _out, err = checks.run_command(["no-such-program"], None, 5)
    assert rc == 127
    assert "no-such-program" in err
