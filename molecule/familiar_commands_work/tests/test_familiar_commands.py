# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import pytest

PLACE = "/shared/test-commands"
HELLO = r"""#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    int length;
    char name[MPI_MAX_PROCESSOR_NAME];
    MPI_Init(&argc, &argv);
    MPI_Get_processor_name(name, &length);
    printf("rank on %s\n", name);
    MPI_Finalize();
    return 0;
}
"""
MPI = """#!/bin/bash
#$ -N waves -cwd -j y
#$ -pe mpi 6
#$ -l h_rt=00:02:00,h_vmem=50M   # a slot
echo "$JOB_ID $JOB_NAME $NSLOTS $NHOSTS $1"
cat $PE_HOSTFILE
sort -u $PBS_NODEFILE
mpirun ./hello
"""
PYTHON = """#!/usr/bin/env python3
#PBS -N snake
#PBS -l nodes=1:ppn=2,walltime=60
import os, sys
print(os.environ["PBS_JOBID"], os.environ["PBS_NP"], os.environ["COLOUR"], sys.argv[1:])
"""


@pytest.fixture
def alice(site):
    """Return what runs a command as alice on the login host in the shared directory."""
    login = site.root("login1")
    login.check_output("install -d -o alice -g alice %s", PLACE)

    def run(command):
        return login.run("su - alice -c %s", f"cd {PLACE} && {command}")

    for name, text in (("hello.c", HELLO), ("mpi.sh", MPI), ("snake.py", PYTHON)):
        login.check_output("printf %s %s >%s", "%s", text, f"{PLACE}/{name}")
    yield run
    run("qdel -u alice")
    login.check_output("rm -r %s", PLACE)


def test_a_script_of_grid_engine_runs_mpi_over_the_nodes(alice):
    assert alice("mpicc -o hello hello.c").rc == 0
    said = alice("timeout 120 qsub -sync y mpi.sh 'one argument'")
    assert said.rc == 0, said.stderr
    number = said.stdout.split()[2]
    assert said.stdout == f'Your job {number} ("waves") has been submitted\n'
    lines = alice(f"cat waves.o{number}").stdout.splitlines()
    assert lines[0] == f"{number} waves 6 3 one argument"
    assert lines[1:4] == [f"node{node} 2 main@node{node} UNDEFINED" for node in (1, 2, 3)]
    assert lines[4:7] == ["node1", "node2", "node3"]
    assert sorted(lines[7:]) == [f"rank on node{node}" for node in (1, 1, 2, 2, 3, 3)]


def test_a_script_of_pbs_in_another_language_runs_with_its_variables(alice):
    said = alice("timeout 60 qsub -v COLOUR=green -W block=true snake.py a 'b c'")
    number = said.stdout.strip()
    assert number.isdigit(), said.stderr
    assert alice(f"cat snake.o{number}").stdout == f"{number} 2 green ['a', 'b c']\n"


def test_jobs_are_watched_held_and_deleted_as_ever(alice):
    assert alice("qsub -b y -N long tail -f /dev/null").rc == 0
    number = alice("qsub -terse -b y -hold_jid long -N after true").stdout.strip()
    task = alice("qsub -terse -h -t 1-5:2 -b y -N tasks true").stdout.strip()
    states = {row.split()[2]: row.split()[4] for row in alice("qstat").stdout.splitlines()[2:]}
    assert states == {"long": "r", "after": "hqw", "tasks": "hqw"}
    assert task.endswith(".1-5:2")
    assert "job_name:                   after" in alice(f"qstat -j {number}").stdout
    assert "main@node1" in alice("qstat -f").stdout
    assert [row.split()[0] for row in alice("qhost").stdout.splitlines()[3:]] == ["node1", "node2", "node3"]
    assert alice("qdel after 99999").rc == 1
    assert alice("qdel 'lo*' tasks").rc == 0
    assert "R" not in alice("squeue --me --noheader --format=%t").stdout.split()


def test_an_option_without_an_equal_is_an_error_that_names_it_and_nothing_is_submitted(alice):
    refused = alice("qsub -pe mpi 4-16 -ckpt x -N a mpi.sh")
    assert refused.rc == 2
    assert "option -ckpt has no equal. The Slurm way" in refused.stderr
    assert alice("qstat").stdout == ""


def test_the_rest_of_the_commands_is_debians(alice):
    assert "node1" in alice("pbsnodes").stdout
    assert "Job id" in alice("qsub -b y -N x tail -f /dev/null; qstat -a").stdout


def test_daemons_that_are_killed_come_back_and_every_job_runs_once(make_jobs):
    jobs = make_jobs("molecule")
    batch = jobs.submit(count=8, held=True)
    jobs.kill("head", "munge", "mariadb", "slurmdbd", "slurmctld")
    jobs.kill("node1", "munge", "slurmd")
    jobs.wait_for_health()
    jobs.release(batch)
    jobs.assert_each_ran_once(batch)
