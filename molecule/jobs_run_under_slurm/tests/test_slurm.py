# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json
import shlex
import time

import pytest

NODES = ("node1", "node2", "node3")
DAEMONS = {
    "head": ("munge", "mariadb", "slurmdbd", "slurmctld"),
    "login1": ("munge",),
    **dict.fromkeys(NODES, ("munge", "slurmd")),
}
PLACE = "/shared/test-slurm"
HELLO = r"""
#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    int rank, length, sum;
    char name[MPI_MAX_PROCESSOR_NAME];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Get_processor_name(name, &length);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("%s %d\n", name, sum);
    MPI_Finalize();
    return 0;
}
"""


@pytest.fixture
def alice(site):
    """Return what runs a command as alice on the login host, in a directory that is shared, and returns its output."""
    login = site.root("login1")

    def run(command, node=login):
        return node.check_output("su - alice -c %s", f"cd {PLACE} && {command}")

    login.check_output(f"install -d -o alice -g alice {PLACE}")
    yield run
    login.check_output(f"rm -r {PLACE}")


def write(alice, name, text):
    alice(f"printf %s {shlex.quote(text)} >{name}")


def ended(alice, job):
    """Wait until the accounting knows how a job ended, and whose it was; return its state.

    slurmctld tells slurmdbd of new jobs every five seconds. When a job is over before that, its end comes first, and
    until the rest follows sacct has the job as one of root.
    """
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        user, _bar, state = alice(f"sacct -n -P -X -o User,State -j {job}").partition("|")
        if user == "alice" and state not in ("PENDING", "RUNNING", "COMPLETING"):
            return state
        time.sleep(0.3)  # poll interval
    pytest.fail(f"job {job} did not end: {user!r} {state!r}")


def starts(site):
    """Return when each daemon was started, and as which process."""
    show = "systemctl show -p MainPID -p ExecMainStartTimestampMonotonic -p NRestarts"
    return {node: site.root(node).check_output(f"{show} {' '.join(names)}") for node, names in DAEMONS.items()}


def test_a_batch_job_of_an_ordinary_user_runs_on_all_nodes_and_is_in_the_accounting(alice):
    write(alice, "job", "#!/bin/sh\nsrun hostname\n")
    job = alice("sbatch --parsable -N 3 -o out job")
    assert ended(alice, job) == "COMPLETED"
    assert sorted(alice("cat out").split()) == list(NODES)
    assert alice(f"sacct -n -P -X -o NNodes -j {job}") == "3"


def test_mpi_runs_from_the_login_host_by_srun_and_by_mpirun_within_an_allocation(alice):
    write(alice, "hello.c", HELLO)
    alice("mpicc hello.c -o hello")
    expected = sorted(f"{node} 15" for node in NODES for _rank in range(2))
    size = "-N 3 --ntasks-per-node=2 --mem=200M"
    for command in (f"srun {size} ./hello", f"srun --mpi=pmix {size} ./hello", f"salloc -Q {size} mpirun ./hello"):
        assert sorted(alice(command).splitlines()) == expected, command
    write(alice, "job", "#!/bin/sh\nmpirun ./hello\n")
    job = alice(f"sbatch --parsable {size} -o out job")
    assert ended(alice, job) == "COMPLETED"
    assert sorted(alice("cat out").splitlines()) == expected


def test_a_job_that_takes_more_memory_than_it_asked_for_is_ended(alice):
    write(alice, "job", "#!/bin/sh\nexec python3 -c 'bytearray(300 << 20)'\n")
    small = alice("sbatch --parsable --mem=100M -o /dev/null job")
    large = alice("sbatch --parsable --mem=400M -o /dev/null job")
    assert ended(alice, small) == "OUT_OF_MEMORY"
    assert ended(alice, large) == "COMPLETED"


def test_a_job_has_the_cores_that_it_asked_for_and_no_others(alice):
    count = "python3 -c 'import os; print(len(os.sched_getaffinity(0)))'"
    assert alice(f"srun -n 1 -c 1 --mem=50M {count}") == "1"
    assert alice(f"srun -n 1 -c 2 --mem=50M {count}") == "2"


def test_jobs_that_ask_for_no_memory_share_a_node(alice):
    jobs = [alice("sbatch --parsable -w node1 -n 1 -o /dev/null --wrap 'tail -f /dev/null'") for _job in range(2)]
    deadline = time.monotonic() + 20
    while len(alice("squeue --noheader --states=RUNNING --format=%i").split()) < len(jobs):
        assert time.monotonic() < deadline, alice("squeue")
        time.sleep(0.3)  # poll interval
    alice(f"scancel {' '.join(jobs)}")


def test_every_host_has_the_commands_and_the_secret_and_only_the_controller_the_configuration(site):
    secret = (site.path / ".secrets/slurm/munge.key").read_text().split()[0]
    script = """
        su - bob -c 'sinfo --noheader --format=%%D'
        stat --format='%%U %%a' /etc/munge/munge.key
        cat /etc/munge/munge.key; echo
        ls /etc/slurm/slurm.conf 2>/dev/null || echo none
        journalctl --no-pager | grep --count --fixed-strings %s
    """
    for node in DAEMONS:
        found = site.root(node).run(script, secret).stdout.split("\n")
        configuration = "/etc/slurm/slurm.conf" if node == "head" else "none"
        assert found == ["3", "munge 400", secret, configuration, "0", ""], f"{node}: {found}".replace(
            secret, "(secret)"
        )


def test_a_second_run_changes_nothing_and_no_daemon_has_been_restarted_since_the_first(site):
    before = starts(site)
    run = site.play("slurm").succeeded()
    assert not any(run.changed.values()), run.output
    assert starts(site) == before


def test_a_change_of_the_configuration_is_in_force_without_a_restart(site):
    before = starts(site)
    change = json.dumps({"slurm_conf": {"SchedulerParameters": "bf_interval=17"}})
    assert site.play("slurm", "-e", change).succeeded().changed["head"]
    assert "bf_interval=17" in site.root("login1").check_output("su - alice -c 'scontrol show config'")
    site.play("slurm").succeeded()
    assert "bf_interval" not in site.root("login1").check_output("su - alice -c 'scontrol show config'")
    assert starts(site) == before


def test_what_slurm_does_not_know_is_an_error_before_anything_is_written(site):
    before = site.root("head").file("/etc/slurm/slurm.conf").sha256sum
    wrong = {"slurm_conf": {"SchedulerParametres": "x", "StateSaveLocation": "/tmp"}}
    run = site.play("slurm", "-e", json.dumps(wrong))
    assert run.code != 0
    output = " ".join(run.output.split())
    assert "SchedulerParametres" in output
    assert "SchedulerParameters" in output
    assert "StateSaveLocation" in output
    assert site.root("head").file("/etc/slurm/slurm.conf").sha256sum == before
