# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json
import re
import shlex

import pytest

SOURCE = r"""
#include <mpi.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    int rank, length, sum;
    char name[MPI_MAX_PROCESSOR_NAME];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Get_processor_name(name, &length);
    printf("rank %d on %s\n", rank, name);
    fflush(stdout);
    /* Works on and talks to the others, until somebody ends it. */
    while (argc > 1) {
        MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
        usleep(200000); /* poll interval */
    }
    MPI_Finalize();
    return 0;
}
"""
PUSH = """
set -eu
mkdir -p tree && cd tree
git init --quiet --initial-branch=main
printf %s {source} >work.c
printf %s {manifest} >mpi.yml
git add --all
git -c user.name=x -c user.email=x commit --quiet --allow-empty --message=x
git push head:apps/work HEAD:main 2>&1
"""
HOSTS = ["head", "node1", "node2", "node3"]


@pytest.fixture
def site(make_site):
    return make_site("pushed")


@pytest.fixture
def jobs(site, make_jobs):
    jobs = make_jobs(re.search(r"cluster_name: (\w+)", (site.path / "machines.docker.yml").read_text())[1])
    yield jobs
    jobs.at("head").run("su - alice -c 'apps cancel work'; su - alice -c 'apps remove --yes work; rm -rf tree'")
    if jobs.at("head").run("ping -c 1 -W 1 node2; timeout 2 bash -c '</dev/tcp/node2/22'").rc:
        jobs.power_on("node2")
    jobs.wait_for_health()


@pytest.fixture
def alice(jobs):
    def run(*argv):
        return jobs.at("head").run("su - alice -c %s", shlex.join(argv))

    return run


def push(alice, hosts):
    manifest = f"from: work.c\nto: work\nhosts: {hosts}\n"
    return alice("sh", "-c", PUSH.format(source=shlex.quote(SOURCE), manifest=shlex.quote(manifest)))


def state(alice, number):
    return json.loads(alice("apps", "status", "--json", "work", str(number)).stdout)


def run_for_ever(alice, jobs, number):
    """Start a run on all hosts, and wait until all ranks work."""
    assert alice("apps", "run", "--detach", "-o", "args=ever", "work").rc == 0
    jobs.until("all ranks work", lambda: state(alice, number)["output"].count("rank ") == 4, 60)


def test_a_run_under_slurm_that_loses_a_node_is_ended_and_the_next_one_gets_a_clear_answer(jobs, alice):
    said = push(alice, 4)
    assert said.rc == 0, said.stdout
    assert sorted(re.findall(r"rank \d on (\w+)", said.stdout)) == HOSTS
    run_for_ever(alice, jobs, 2)
    jobs.power_off("node2")
    # Not before Slurm misses the node, unless MPI notices first.
    jobs.until("the run has ended", lambda: state(alice, 2)["state"] in ("lost", "failed"), 150)
    jobs.until("Slurm misses the node", lambda: "down" in jobs.state_of("node2"), 60)
    refused = alice("apps", "run", "work")
    assert refused.rc == 1
    assert "asks for 4 hosts, and partition main has 3" in refused.stderr
    again = alice("apps", "run", "-o", "hosts=3", "work")
    assert again.rc == 0, again.stdout
    assert sorted(re.findall(r"rank \d on (\w+)", again.stdout)) == ["head", "node1", "node3"]


def test_the_same_without_slurm(site, jobs, alice):
    site.play("mpi_service", "-e", "cluster_scheduler=none").succeeded()
    said = push(alice, 4)
    assert said.rc == 0, said.stdout
    assert sorted(re.findall(r"rank \d on (\w+)", said.stdout)) == HOSTS
    run_for_ever(alice, jobs, 2)
    jobs.power_off("node2")
    refused = alice("apps", "run", "work")
    assert refused.rc == 1
    assert "asks for 4 hosts, and 3 of 4 answer now (head, node1, node3)" in refused.stderr
    # mpirun hears of the loss when a connection fails.
    jobs.until("the run has ended", lambda: state(alice, 2)["state"] == "failed", 150)
    again = alice("apps", "run", "-o", "hosts=3", "work")
    assert again.rc == 0, again.stdout
    assert sorted(re.findall(r"rank \d on (\w+)", again.stdout)) == ["head", "node1", "node3"]
    jobs.power_on("node2")
    site.play("mpi_service").succeeded()
