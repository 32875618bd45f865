# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json

import pytest

LUA = """
function slurm_job_submit(job, partitions, uid)
  if job.time_limit == slurm.NO_VAL and uid ~= 0 then
    slurm.log_user("say how long the job takes, with --time")
    return slurm.ESLURM_INVALID_TIME_LIMIT
  end
  return slurm.SUCCESS
end
function slurm_job_modify(job, old, partitions, uid)
  return slurm.SUCCESS
end
return slurm.SUCCESS
"""
SWITCHED_ON = {
    "slurm_ssh_needs_job": True,
    "slurm_ssh_operators": ["bob"],
    "slurm_scripts": {
        "prolog": "#!/bin/sh\necho prolog $SLURM_JOB_ID >>/run/seen\n",
        "epilog": "#!/bin/sh\necho epilog $SLURM_JOB_ID >>/run/seen\n",
        "task_prolog": "#!/bin/sh\necho export FROM_PROLOG=$(id -un)\n",
        "task_epilog": "#!/bin/sh\ntouch /tmp/epilog.$SLURM_JOB_ID\n",
    },
    "slurm_health_check_interval_seconds": 5,
    "slurm_health_check": {"mounts": ["/shared", "/tmp"]},
    "slurm_job_submit_lua": LUA,
    "slurm_conf": {
        "SlurmdTimeout": 60,
        "JobCompType": "jobcomp/filetxt",
        "JobCompLoc": "/var/log/slurm/jobcomp.log",
    },
}
MPI = """#!/bin/bash
#$ -pe mpi 4 -N mpi -j y -cwd -l h_rt=120
mpicc -o hello /shared/hello.c
mpirun ./hello
mpirun --mca plm rsh ./hello
ssh -o BatchMode=yes node2 cat /proc/self/cgroup
"""
HELLO = """#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    int rank;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    printf("rank %d\\n", rank);
    MPI_Finalize();
    return 0;
}
"""


@pytest.fixture(scope="module")
def pam_before():
    """What /etc/pam.d/sshd of node1 was before anything was switched on."""
    return {}


@pytest.fixture
def site(make_site):
    return make_site("faults")


@pytest.fixture
def jobs(make_jobs):
    return make_jobs("faults")


def alice(site, command, node="head"):
    return site.root(node).run("su - alice -c %s", f"cd /shared && {command}")


def test_everything_is_switched_on_by_one_run_and_a_second_changes_nothing(site, pam_before):
    pam_before["node1"] = site.root("node1").check_output("cat /etc/pam.d/sshd")
    site.play("slurm", "-e", json.dumps(SWITCHED_ON)).succeeded()
    again = site.play("slurm", "-e", json.dumps(SWITCHED_ON)).succeeded()
    assert not any(again.changed.values()), again.output


def test_without_a_job_only_operators_get_to_a_node(site):
    refused = alice(site, "ssh -o BatchMode=yes node1 hostname || exit 1")
    assert refused.rc == 1
    assert "you have no active jobs on this node" in refused.stderr
    assert site.root("head").check_output("su - bob -c 'ssh -o BatchMode=yes node1 hostname'") == "node1"
    assert site.root("node1").check_output("hostname") == "node1"


def test_mpi_works_within_a_job_both_ways_and_a_login_is_a_part_of_it(site):
    head = site.root("head")
    for name, text in (("hello.c", HELLO), ("mpi.sh", MPI)):
        head.check_output("printf %s %s >%s", "%s", text, f"/shared/{name}")
    done = alice(site, "timeout 120 qsub -sync y -o mpi.out mpi.sh; cat mpi.out")
    ranks = [line for line in done.stdout.splitlines() if line.startswith("rank")]
    assert sorted(ranks) == sorted(f"rank {rank}" for rank in range(4) for _launcher in range(2)), done.stdout
    assert "/step_extern" in done.stdout


def test_prolog_and_epilog_run_on_the_node_and_for_the_task(site):
    number = alice(
        site, "timeout 60 sbatch --parsable --wait -t 1 -w node1 -o prolog.out --wrap 'echo $FROM_PROLOG'"
    ).stdout.strip()
    assert alice(site, "cat prolog.out").stdout.strip() == "alice"
    node = site.root("node1")
    node.check_output(
        f"timeout 20 sh -c 'until grep -q \"epilog {number}\" /run/seen; do sleep 0.2; done' # poll interval"
    )
    assert node.check_output("cat /run/seen").splitlines()[-2:] == [f"prolog {number}", f"epilog {number}"]
    assert node.file(f"/tmp/epilog.{number}").exists


def test_a_job_that_breaks_the_sites_rule_is_refused_with_its_words(site):
    refused = alice(site, "sbatch --wrap true")
    assert refused.rc != 0
    assert "say how long the job takes" in refused.stderr


def test_finished_jobs_are_listed_in_a_file_as_well(site):
    assert "JobState=COMPLETED" in site.root("head").check_output("tail -n 1 /var/log/slurm/jobcomp.log")


def test_x11_is_off(site):
    assert "X11" not in site.root("head").check_output("scontrol show config | grep -i '^PrologFlags'")


def test_a_node_that_loses_a_mount_is_drained_and_resumed_when_it_is_back(site, jobs):
    console = jobs.at("node2")
    jobs.until("node2 is well", lambda: jobs.state_of("node2") == "idle", 60)
    console.check_output("umount --lazy /tmp")
    jobs.until("node2 is drained", lambda: "drain" in jobs.state_of("node2"), 60)
    reason = jobs.at("head").check_output("sinfo --noheader --nodes=node2 --format=%E")
    assert reason == "node health: /tmp is not mounted"
    assert jobs.state_of("node1") == "idle"
    console.check_output("mount -t tmpfs -o mode=1777 tmpfs /tmp")
    jobs.until("node2 is resumed", lambda: jobs.state_of("node2") == "idle", 60)


def test_what_somebody_else_drained_stays_drained(site, jobs):
    jobs.at("head").check_output("scontrol update nodename=node2 state=drain reason=memory")
    try:
        assert jobs.at("node2").run("/usr/local/sbin/slurm-node-health").rc == 0
        assert jobs.state_of("node2") == "drained"
    finally:
        jobs.at("head").check_output("scontrol update nodename=node2 state=resume")


def test_everything_is_switched_off_again(site, pam_before):
    site.play("slurm").succeeded()
    node = site.root("node1")
    assert node.check_output("cat /etc/pam.d/sshd") == pam_before["node1"]
    for path in ("/etc/slurm/prolog", "/etc/slurm/task_epilog", "/usr/local/sbin/slurm-node-health"):
        assert not node.file(path).exists, path
    assert not site.root("head").file("/etc/slurm/job_submit.lua").exists
    assert alice(site, "ssh -o BatchMode=yes node1 hostname").stdout.strip() == "node1"
    assert alice(site, "timeout 60 sbatch --wait -o /dev/null --wrap true").rc == 0
