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
    assert result["detail"]["failures"] == ["There are no compute nodes to run a job on."]


class Slurm:
    """A controller that answers as recorded: 22.05.8 and 24.11.5 say the same."""

    def __init__(
        self, states=("PENDING Resources\n", "RUNNING None\n", "COMPLETED None\n"), lines=("n1", "n2"), refusal=""
    ):
        self.states, self.lines, self.refusal, self.asked = list(states), lines, refusal, []

    def run(self, argv, stdin, timeout):
        self.asked.append(argv)
        if argv[0] == "sbatch":
            (output,) = (option.partition("=")[2] for option in argv if option.startswith("--output="))
            if output != "/dev/null":
                Path(output).write_text("".join(f"{line}\n" for line in self.lines))
            return (1, "", self.refusal) if self.refusal else (0, "17;lab\n", "")
        if argv[0] in ("squeue", "sacct"):
            return 0, self.states.pop(0) if len(self.states) > 1 else self.states[0], ""
        if argv[0] in ("srun", "salloc"):
            ranks = "".join(f'{{"rank": {rank}, "host": "{host}"}}\n' for rank, host in enumerate(self.lines))
            return 0, ranks + f'{{"sum": {len(self.lines) * (len(self.lines) - 1) // 2}}}\n', ""
        return 0, "", ""


def slurm_context(slurm, tmp_path, **more):
    return context(slurm.run, tmp_path, pause=lambda seconds: None, **more)


def test_a_batch_job_is_waited_for_and_its_output_is_read(tmp_path):
    slurm = Slurm()
    detail = checks.slurm_batch(slurm_context(slurm, tmp_path))
    assert detail == {"job": 17, "state": "COMPLETED", "hosts": ["n1", "n2"], "failures": []}
    submitted = slurm.asked[0]
    assert {"--nodes=2", "--nodelist=n1,n2"} <= set(submitted)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("slurm", "failures"),
    [
        (Slurm(lines=("n1",)), ["n2: did nothing"]),
        (
            Slurm(states=["FAILED NonZeroExitCode\n"], lines=("n1", "n2", "boom")),
            ["job 17 ended as FAILED: n1 / n2 / boom"],
        ),
        (Slurm(states=["NODE_FAIL None\n"], lines=("n1", "n2")), ["job 17 ended as NODE_FAIL: n1 / n2"]),
    ],
)
def test_a_batch_job_that_goes_wrong_says_how(tmp_path, slurm, failures):
    assert checks.slurm_batch(slurm_context(slurm, tmp_path))["failures"] == failures


def test_a_job_that_slurm_refuses_is_a_failed_check_with_its_reason(tmp_path):
    slurm = Slurm(refusal="sbatch: error: Batch job submission failed: Invalid account\n")
    with pytest.raises(checks.CheckFailed, match="Invalid account"):
        checks.slurm_batch(slurm_context(slurm, tmp_path))


def test_a_job_that_does_not_end_in_time_is_cancelled_and_the_reason_for_waiting_is_told(tmp_path):
    slurm = Slurm(states=["PENDING Resources\n"])
    ticks = iter(range(0, 1000, 7))
    with pytest.raises(checks.CheckFailed, match=r"job 17 did not end within 60 seconds.*PENDING Resources"):
        checks.slurm_batch(slurm_context(slurm, tmp_path, clock=lambda: next(ticks)))
    assert slurm.asked[-1] == ["scancel", "17"]


def test_mpi_is_started_by_srun_and_by_mpirun_within_an_allocation(tmp_path):
    slurm = Slurm()
    detail = checks.slurm_mpi(slurm_context(slurm, tmp_path))
    assert [rank["host"] for rank in detail["ranks"]] == ["n1", "n2"]
    assert detail["failures"] == []
    assert [argv[0] for argv in slurm.asked] == ["mpicc", "srun", "salloc"]


def test_a_host_without_a_rank_is_named_for_each_way_to_start(tmp_path):
    detail = checks.slurm_mpi(slurm_context(Slurm(lines=("n1",)), tmp_path))
    assert detail["failures"] == ["srun: n2: has no rank", "salloc and mpirun: n2: has no rank"]


def test_the_accounting_is_asked_until_it_knows_how_a_job_ended(tmp_path):
    slurm = Slurm(states=["", "RUNNING|lab|alice\n", "COMPLETED|lab|alice\n"])
    detail = checks.slurm_accounting(slurm_context(slurm, tmp_path))
    assert detail == {"job": 17, "state": "COMPLETED", "failures": []}
    assert sum(argv[0] == "sacct" for argv in slurm.asked) == 3


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


@pytest.mark.parametrize(("scheduler", "starter"), [("slurm", "srun"), ("none", "mpirun")])
def test_the_network_is_measured_by_what_starts_jobs_and_a_host_that_is_left_out_is_named(tmp_path, scheduler, starter):
    asked = []

    def run(argv, stdin, timeout):
        asked.append(argv)
        lines = ['{"rank": 0, "host": "n1"}', '{"rank": 1, "host": "x"}']
        lines.append('{"from": 0, "to": 1, "latency_us": 3.0, "bandwidth_mb_s": 100.0}')
        return 0, "\n".join(lines), ""

    detail = checks.mpi_network(context(run, tmp_path, options={"scheduler": scheduler}))
    assert [argv[0] for argv in asked] == ["mpicc", starter]
    assert detail["links"] == [{"hosts": ["n1", "x"], "latency_us": 3.0, "bandwidth_mb_s": 100.0}]
    assert detail["failures"] == ["n2: was not measured"]


def push(said, rc=0):
    """Return what runs git for real, but for the push, which says ``said``."""
    asked = []

    def run(argv, stdin, timeout):
        asked.append(argv)
        if "push" in argv:
            return rc, "", said
        return checks.run_command(argv, stdin, timeout) if "git" in argv else (0, "", "")

    return run, asked


def test_an_application_is_pushed_over_ssh_as_a_user_does_and_removed_again():
    said = "".join(f'remote: {{"rank": {rank}, "host": "n{rank + 1}"}}        \n' for rank in range(2))
    run, asked = push(said + 'remote: {"sum": 1}\n')
    detail = checks.mpi_service(context(run))
    assert detail["failures"] == []
    assert [rank["host"] for rank in detail["ranks"]] == ["n1", "n2"]
    (command,) = [argv for argv in asked if "push" in argv]
    assert any("StrictHostKeyChecking=yes" in word for word in command)
    name = command[-2].partition("apps/")[2]
    assert ["apps", "remove", "--yes", name] in asked


@pytest.mark.parametrize(("said", "rc"), [("remote: mpi.yml:3: wrong\nerror: failed", 1), ("remote: nothing\n", 0)])
def test_a_push_that_is_refused_or_runs_nothing_fails_the_check(said, rc):
    run, _asked = push(said, rc)
    (result,) = checks.run_checks(["mpi_service"], context(run))
    assert not result["ok"]
