# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import notebook_check as client
import pytest

SITE = os.environ.get("TURNKEY_ELASTIC_SITE", "elastic")
BREAKER = 3
JOB_SECONDS = 20
HELLO = r"""
#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    int rank, sum, length;
    char name[MPI_MAX_PROCESSOR_NAME];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Get_processor_name(name, &length);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("rank %d on %s, sum %d\n", rank, name, sum);
    MPI_Finalize();
}
"""
PUSH = """
set -e
cd "$(mktemp -d)"
git init --quiet --initial-branch=main
cat >hello.c
printf 'from: hello.c\nto: hello\nhosts: 4\n' >mpi.yml
git add .
git -c user.name=x -c user.email=x commit --quiet --message=x
git push alice@head:apps/hello main 2>&1
"""
# What the role could leave: files where it writes, what they say of it, packages, units, timers. Not slurm.conf.
PICTURE = """
places="/etc /root/.ssh /usr/local /var/spool"
find $places /var/lib/node-power -xdev ! -path '/etc/slurm*' -type f -exec sha256sum {} + 2>/dev/null | sort -k 2
grep --recursive --exclude-dir=slurm -e node-power -e 'turnkey.hpc elastic' $places
dpkg-query --show
systemctl list-unit-files --no-legend --no-pager
systemctl list-timers --all --no-legend --no-pager | awk '{print $(NF-1)}' | sort
"""
ASK = "ssh -i /etc/turnkey/node-power/key -o IdentitiesOnly=yes -o BatchMode=yes power "


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


class Elastic:
    """The cluster, from the console of its head."""

    def __init__(self, site, jobs) -> None:
        self.site, self.jobs = site, jobs
        self.head = jobs.at("head")

    def machines(self) -> set[str]:
        """Return the nodes that have a container."""
        labels = ("--filter", f"label=turnkey.cluster={self.jobs.name}", "--filter", "label=turnkey.role=elastic")
        return set(docker("ps", "--all", *labels, "--format", '{{.Label "turnkey.name"}}').split())

    def submit(self, *arguments: str, wrap: str = "hostname") -> str:
        """Submit a job of alice, which writes into the shared directory."""
        words = " ".join(("sbatch", "--parsable", "--chdir=/shared", *arguments, f"--wrap='{wrap}'"))
        return self.head.check_output("su - alice -c %s", words)

    def output(self, number: str) -> str:
        return self.head.run("cat /shared/slurm-%s.out", number).stdout

    def state(self, number: str) -> str:
        return self.head.run("squeue --noheader --states=all --jobs=%s --format=%%T", number).stdout.strip()

    def node(self, name: str) -> str:
        return self.head.run("scontrol --oneliner show node %s", name).stdout

    def reasons(self) -> str:
        """Return why nodes are down."""
        return self.head.run("sinfo --list-reasons --noheader --format=%300E").stdout

    def machine(self) -> str:
        """Wait for the only machine of a job and return its node: Slurm may take any."""
        self.wait("the machine is made", lambda: bool(self.machines()))
        (name,) = self.machines()
        return name

    def wait(self, what: str, holds, seconds: float = 180) -> None:
        self.jobs.until(what, holds, seconds)

    def wait_for_end(self, number: str, seconds: float = 300) -> None:
        self.wait(f"job {number} completed", lambda: self.state(number) == "COMPLETED", seconds)

    def wait_until_empty(self) -> None:
        """Wait until nothing of any job is left: no container, and every node off and usable."""
        self.wait("all machines are gone", lambda: not self.machines(), 240)
        states = "sinfo --noheader --partition=burst,broken --Node --format=%T"
        self.wait("all nodes are off", lambda: set(self.head.run(states).stdout.split()) <= {"idle~"}, 300)


@pytest.fixture(scope="module", autouse=True)
def engine() -> Iterator[None]:
    """The engine's socket in the volume of the power host."""
    volume = docker("volume", "inspect", "--format", "{{.Mountpoint}}", f"turnkey-{SITE}-engine")
    relay = Path(__file__).parents[3] / "tests/standins/socket_relay.py"
    with subprocess.Popen([sys.executable, relay, f"{volume}/docker.sock", "/var/run/docker.sock"]) as process:
        yield
        process.terminate()


@pytest.fixture
def cluster(make_site, make_jobs) -> Iterator[Elastic]:
    """The cluster without a machine, before and after each test."""
    elastic = Elastic(make_site(SITE), make_jobs(SITE))
    yield elastic
    elastic.wait_until_empty()


def test_from_no_node_to_the_output_of_a_job_and_back(cluster: Elastic) -> None:
    began = time.monotonic()
    script = f"srun hostname; id -u; getent hosts head burst2 | wc -l; sleep {JOB_SECONDS}"
    number = cluster.submit("--partition=burst", "--nodes=2", wrap=script)
    cluster.wait("the nodes come", lambda: "POWERING_UP" in cluster.node("burst1"))
    assert "powering up" in cluster.head.check_output("su - alice -c 'node-power status'")
    cluster.wait("the job runs", lambda: len(cluster.output(number).split()) == 4)
    print(f"from sbatch to output: {time.monotonic() - began:.1f} s")
    lines = cluster.output(number).split()
    assert (sorted(lines[:2]), lines[2:]) == (["burst1", "burst2"], ["2001", "2"])
    assert cluster.jobs.at("burst1").check_output("stat --format='%U %a' /etc/munge/munge.key") == "munge 400"


def test_the_power_host_does_what_it_may_and_nothing_else(cluster: Elastic) -> None:
    assert cluster.head.check_output(ASK + "status") == '{"machines": {}}'
    for request in (
        "id",
        "",
        "'resume head'",
        "'resume burst1; id'",
        "'resume burst[1-999999999]'",
        "'status\nid'",
        "'suspend $(id)'",
    ):
        refused = cluster.head.run(f"{ASK}{request} </dev/null")
        assert (refused.rc, refused.stdout, refused.stderr.splitlines()[-1]) == (3, "", "refused"), request
    assert cluster.head.run(
        f"echo x | {ASK.replace('ssh ', 'scp ', 1).replace(' power ', '')} /etc/hosts power:/tmp/x"
    ).rc
    forwarding = ASK.replace("ssh ", "ssh -o ExitOnForwardFailure=yes -W 127.0.0.1:22 ", 1)
    assert cluster.head.run(f"{forwarding} </dev/null").rc
    log = cluster.jobs.at("power").check_output("journalctl --no-pager -t node-power")
    assert log.count("event=refused") >= 7


def test_an_image_that_is_missing_is_told_at_once_and_closes_the_partition(cluster: Elastic) -> None:
    number = cluster.submit("--partition=broken", f"--nodes={BREAKER}")
    cluster.wait("the failure is told", lambda: "(Code:NotFound)" in cluster.node("broken1"))
    assert "turnkey/none" in cluster.reasons()
    cluster.wait(
        "the partition is closed", lambda: cluster.head.run("sinfo -h -p broken -o %a").stdout.split()[0] == "down"
    )
    cluster.head.check_output(f"scancel {number}")
    assert "node-power reset broken" in cluster.head.check_output("node-power status")
    cluster.head.check_output("node-power reset broken")
    assert cluster.head.check_output("sinfo -h -p broken -o %a").split()[0] == "up"


def test_a_job_that_is_cancelled_while_its_node_boots_leaves_nothing(cluster: Elastic) -> None:
    number = cluster.submit("--partition=burst", "--nodelist=burst1")
    cluster.wait("the node comes", lambda: "POWERING_UP" in cluster.node("burst1"))
    cluster.head.check_output(f"scancel {number}")


def test_daemons_that_die_in_the_middle_lose_no_job(cluster: Elastic) -> None:
    number = cluster.submit("--partition=burst")
    name = cluster.machine()
    cluster.head.run("systemctl kill --signal=KILL node-power.service")
    cluster.head.check_output("systemctl restart slurmctld")
    cluster.wait_for_end(number)
    assert cluster.output(number).strip() == name


@pytest.mark.minutes
def test_a_push_for_four_hosts_starts_the_three_that_are_not_up_and_users_reach_them(cluster: Elastic) -> None:
    said = cluster.head.check_output("printf %%s %s | su - alice -c %s", HELLO, PUSH)
    assert sorted(re.findall(r"rank \d on (\w+), sum 6", said)) == ["burst1", "burst2", "burst3", "head"], said
    # The nodes are still there, with keys that nobody has seen before.
    ssh = "ssh -o BatchMode=yes burst2 'whoami; hostname'"
    for node in ("head", "power"):
        assert cluster.jobs.at(node).check_output("su - alice -c %s", ssh) == "alice\nburst2"
    assert cluster.head.run("ssh -o BatchMode=yes burst2 true").rc == 255
    cluster.head.check_output("su - alice -c 'apps remove --yes hello'")


@pytest.mark.minutes
def test_sixteen_nodes_at_once(cluster: Elastic) -> None:
    number = cluster.submit("--partition=burst", "--nodes=16", wrap="srun hostname")
    cluster.wait_for_end(number, 600)
    assert len(set(cluster.output(number).split())) == 16


@pytest.mark.minutes
def test_nodes_come_while_others_go_and_one_comes_again(cluster: Elastic) -> None:
    cluster.wait_for_end(cluster.submit("--partition=burst", "--nodelist=burst[1-2]"))
    cluster.wait("its nodes go", lambda: "POWERING_DOWN" in cluster.node("burst1"), 90)
    same = cluster.submit("--partition=burst", "--nodelist=burst1")
    others = cluster.submit("--partition=burst", "--nodes=3", wrap="srun hostname")
    cluster.wait_for_end(others)
    cluster.wait_for_end(same)
    assert cluster.output(same).strip() == "burst1"
    assert len(set(cluster.output(others).split())) == 3


@pytest.mark.minutes
def test_a_machine_that_is_killed_gives_its_job_to_another(cluster: Elastic) -> None:
    number = cluster.submit(
        "--partition=burst", "--requeue", "--open-mode=append", wrap=f"hostname; sleep {JOB_SECONDS}; echo end"
    )
    cluster.wait("the job runs", lambda: bool(cluster.output(number)))
    docker("kill", f"{SITE}-{cluster.machine()}")
    cluster.wait("the loss is told", lambda: "(Code:MachineLost)" in cluster.reasons(), 240)
    cluster.wait_for_end(number, 600)
    assert cluster.output(number).count("end") == 1


@pytest.mark.minutes
def test_a_machine_whose_boot_hangs_is_removed_and_its_job_runs_elsewhere(cluster: Elastic) -> None:
    number = cluster.submit("--partition=burst", "--requeue")
    docker("pause", f"{SITE}-{cluster.machine()}")
    cluster.wait("the failure is told", lambda: "(Code:" in cluster.reasons(), 180)
    cluster.wait_for_end(number, 600)


@pytest.mark.minutes
def test_a_power_host_that_is_away_fails_the_node_at_once_and_the_job_waits(cluster: Elastic) -> None:
    docker("pause", f"{SITE}-power")
    try:
        number = cluster.submit("--partition=burst", "--requeue")
        cluster.wait("the failure is told", lambda: "(Code:HostUnreachable)" in cluster.reasons(), 90)
    finally:
        docker("unpause", f"{SITE}-power")
    cluster.wait_for_end(number, 600)


@pytest.mark.minutes
def test_without_reconciliation_nothing_is_started(cluster: Elastic) -> None:
    cluster.head.check_output("systemctl stop node-power-reconcile.timer")
    cluster.head.check_output(r"sed -i 's/\"heartbeat\":[0-9.]*/\"heartbeat\":1/' /var/lib/node-power/memory.json")
    number = cluster.submit("--partition=burst", "--requeue")
    try:
        cluster.wait("the refusal is told", lambda: "(Code:ReconcilerStale)" in cluster.reasons(), 60)
        assert not cluster.machines()
    finally:
        cluster.head.check_output("systemctl start node-power-reconcile.timer")
    cluster.wait_for_end(number, 600)


@pytest.mark.minutes
def test_a_machine_is_kept_or_runs_on_where_its_level_says_so(cluster: Elastic) -> None:
    states = "sinfo --noheader --partition=levels --Node --format=%T"
    seen = []
    for _again in range(2):
        number = cluster.submit("--partition=levels", "--nodes=2", wrap="srun hostname")
        cluster.wait_for_end(number)
        assert sorted(cluster.output(number).split()) == ["always1", "kept1"]
        cluster.wait("the nodes are off", lambda: set(cluster.head.run(states).stdout.split()) == {"idle~"}, 120)
        names = [f"{cluster.jobs.name}-{name}" for name in ("always1", "kept1")]
        seen.append(docker("inspect", "--format", "{{.State.Status}} {{.Id}}", *names).split())
    assert seen[0][::2] == ["running", "exited"]
    assert seen[0] == seen[1]
    assert cluster.jobs.at("always1").run("systemctl is-active slurmd").stdout.strip() == "inactive"
    cluster.jobs.at("power").check_output("node-power clear")


@pytest.mark.minutes
def test_a_notebook_makes_its_node_and_its_user_reads_for_how_long_that_takes(cluster: Elastic) -> None:
    hub = ("-i", str(cluster.site.path.parent / "notebooks/elastic_hub.yml"))
    cluster.site.play("jupyterhub", *hub).succeeded()
    address = cluster.head.check_output("hostname -I").split()[0]
    alice = client.Person(f"https://{address}", str(cluster.site.path / ".secrets/tls_ca/ca.crt"))
    password = cluster.head.check_output("su - alice -c jupyterhub-password").strip()
    assert alice.log_in("alice", password) == 302
    assert not cluster.machines()
    # Nothing is made until its user has read two times for how long the node has been coming.
    cluster.head.check_output("systemctl stop node-power.path")
    alice.start(partition="burst")
    said, times = "", set()
    for message in alice.messages():
        said += f"{message}\n"
        times.update(re.findall(r"nodes are powering up: burst1 for (\d+) s", message))
        if len(times) == 2:
            cluster.head.check_output("systemctl start node-power.path")
    assert len(times) >= 2, said
    assert "runs on burst1. The notebook server starts." in said
    alice.wait_until_ready()
    assert alice.run().split()[:3] == ["2", "alice", "burst1"]
    alice.stop()
    cluster.wait_until_empty()
    cluster.site.play("reset_jupyterhub", *hub).succeeded()


@pytest.mark.minutes
def test_reset_takes_off_all_of_it_and_the_machines_and_site_puts_it_on_again(cluster: Elastic) -> None:
    cluster.head.check_output(ASK + "'resume burst16'")
    assert cluster.machines() == {"burst16"}
    pictures = []
    for _again in range(2):
        cluster.site.play("reset_elastic").succeeded()
        assert not cluster.machines()
        pictures.append({node: cluster.jobs.at(node).check_output(PICTURE) for node in ("head", "power")})
        assert not re.findall(r".*(?:node-power|turnkey.hpc elastic).*", "".join(pictures[-1].values()))
        cluster.site.play("elastic").succeeded()
    assert pictures[0] == pictures[1]


def test_a_second_run_changes_nothing(cluster: Elastic) -> None:
    run = cluster.site.play("elastic").succeeded()
    assert set(run.changed.values()) == {0}
