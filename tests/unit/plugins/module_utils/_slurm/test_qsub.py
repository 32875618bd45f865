# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm import qsub

FILES = ["--output=%x.o%j", "--error=%x.e%j"]


def submitted(line: str, script: str = "true\n", directory: str = "") -> list[str]:
    """Return the options of sbatch that ``qsub <line> job.sh`` leads to, without those that it always has."""
    job, problems = qsub.translate([*line.split(), "job.sh"], lambda path: script)
    assert problems == []
    argv = qsub.sbatch_argv(job, is_directory=lambda path: path == directory)
    assert argv[:3] == ["sbatch", "--parsable", "--ignore-pbs"]
    return [word for word in argv[3:] if word not in (*FILES, "--job-name=job.sh")]


def complaints(line: str, script: str = "true\n") -> list[str]:
    return qsub.translate(line.split(), lambda path: script)[1]


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("", []),
        ("-pe mpi 16", ["--ntasks=16"]),
        ("-pe smp 4", ["--ntasks=4", "--nodes=1"]),
        ("-l nodes=2:ppn=4", ["--nodes=2", "--ntasks-per-node=4"]),
        ("-lnodes=2:ppn=4:gpus=1:fast", ["--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=1", "--constraint=fast"]),
        ("-l nodes=node1+node2", ["--nodelist=node1,node2", "--nodes=2"]),
        ("-l select=2:ncpus=8:mpiprocs=4:mem=16gb",
         ["--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=2", "--mem=16384M"]),
        ("-l h_rt=3600", ["--time=0-01:00:00"]),
        ("-l h_rt=00:05:30", ["--time=0-00:05:30"]),
        ("-l walltime=2:00:00:00", ["--time=2-00:00:00"]),
        ("-l h_rt=INFINITY", ["--time=UNLIMITED"]),
        ("-l h_vmem=4G", ["--mem-per-cpu=4096M"]),
        ("-l h_vmem=1G,mem_free=2G", ["--mem-per-cpu=2048M"]),
        ("-l mem=512mb", ["--mem=512M"]),
        ("-l mem=1000000", ["--mem=1M"]),
        ("-l gpu=2 -l hostname=node1", ["--gpus=2", "--nodelist=node1"]),
        ("-l exclusive", ["--exclusive"]),
        ("-l place=scatter:excl", ["--exclusive"]),
        ("-q long@head -P chem -V", ["--partition=long", "--account=chem", "--export=ALL"]),
        ("-A chem", ["--account=chem"]),
        ("-cwd", []),
        ("-wd /scratch", ["--chdir=/scratch"]),
        ("-d /scratch", ["--chdir=/scratch"]),
        ("-w /scratch", ["--chdir=/scratch"]),
        ("-w e -R y -S /bin/sh", []),
        ("-verify", ["--test-only"]),
        ("-h -p -100 -r n", ["--hold", "--nice=100", "--no-requeue"]),
        ("-a 202611221530.05", ["--begin=2026-11-22T15:30:05"]),
        ("-a 11221530", ["--begin=11/22-15:30:00"]),
        ("-a 1530", ["--begin=15:30:00"]),
        ("-m abe -M alice@lab", ["--mail-type=FAIL,BEGIN,END", "--mail-user=alice@lab"]),
        ("-notify", ["--signal=B:USR2@60"]),
        ("-sync y", ["--wait"]),
        ("-W block=true", ["--wait"]),
    ],
)  # fmt: skip
def test_an_option_becomes_slurms(line, options):
    assert sorted(submitted(line)) == sorted(options)


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("", ["--output=%x.o%j", "--error=%x.e%j"]),
        ("-j y", ["--output=%x.o%j"]),
        ("-joe -o out", ["--output=out"]),
        ("-o logs/", ["--output=logs/%x.o%j", "--error=%x.e%j"]),
        ("-o logs -e logs", ["--output=logs/%x.o%j", "--error=logs/%x.e%j"]),
        ("-o head:/tmp/out -e $JOB_NAME.$JOB_ID", ["--output=/tmp/out", "--error=%x.%j"]),
        ("-t 1-10:2 -tc 3", ["--output=%x.o%A.%a", "--error=%x.e%A.%a", "--array=1-10:2%3"]),
        ("-t 0,3-5%2 -j y -o ${PBS_JOBID}_${PBS_ARRAYID}", ["--output=%A_%a", "--array=0,3-5%2"]),
        ("-o 100%", ["--output=100%%", "--error=%x.e%j"]),
    ],
)
def test_output_goes_where_it_always_went(line, files):
    job, problems = qsub.translate([*line.split(), "job.sh"], lambda path: "")
    assert problems == []
    argv = qsub.sbatch_argv(job, is_directory=lambda path: path == "logs")
    assert argv[argv.index("--job-name=job.sh") + 1 :] == files


def test_lines_of_the_script_count_and_the_command_line_wins():
    script = "#!/bin/bash\n#$ -N first -pe mpi 2   # a remark\n#$ -l h_rt=60 -l h_vmem=1G\necho\n#$ -j y\n"
    job, problems = qsub.translate(["-N", "second", "-l", "h_rt=120", "job.sh"], lambda path: script)
    assert problems == []
    assert job.name == "second"
    assert job.options == {"--ntasks": "2", "--time": "0-00:02:00", "--mem-per-cpu": "1024M"}
    assert job.join


def test_another_prefix_replaces_the_usual_one():
    script = "#$ -N no\n#% -N yes\n"
    assert qsub.translate(["-C", "#%", "job.sh"], lambda path: script)[0].name == "yes"


@pytest.mark.parametrize(
    ("script", "line", "said"),
    [
        ("#$ -N x\n", "", 'Your job 7 ("x") has been submitted'),
        ("#$ -N x\n", "-t 1-9:2", 'Your job-array 7.1-9:2 ("x") has been submitted'),
        ("#$ -N x\n", "-terse -t 3", "7.3-3:1"),
        ("#$ -N x\n", "-terse", "7"),
        ("#PBS -N x\n", "", "7"),
        ("true\n", "-l nodes=1:ppn=2", "7"),
        ("true\n", "", 'Your job 7 ("job.sh") has been submitted'),
    ],
)
def test_the_answer_is_what_scripts_around_it_read(script, line, said):
    job, problems = qsub.translate([*line.split(), "job.sh"], lambda path: script)
    assert problems == []
    assert qsub.announcement(job, "7") == said


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("-foo job.sh", "command line: option -foo is not known"),
        ("-hold_jd 3 job.sh", "did you mean -hold_jid? A line '#SBATCH --option=value'"),
        ("-I", "option -I has no equal. The Slurm way: an interactive job is 'srun --pty bash'."),
        ("-pe mpi 4-16 job.sh", "-pe mpi 4-16: '4-16' is not a number of slots; Slurm knows no range"),
        ("-pe mip 4 job.sh", "'mip' is not known; use 'mpi' for slots on any nodes, or 'smp' for slots on one node"),
        ("-pe mpi", "option -pe needs a name and a number"),
        ("-l h_rt=soon job.sh", "'soon' is not a time"),
        ("-l h_vmem=4Q job.sh", "'4Q' is not an amount of memory"),
        ("-l waltime=1 job.sh", "resource 'waltime' is not known, did you mean 'walltime'?"),
        ("-l nodes=1:ppn=2+2 job.sh", "hetjob"),
        ("-l select=1:ncpu=2 job.sh", "'ncpu' of '1:ncpu=2' is not known"),
        ("-l select=1:ncpus=2 -pe mpi 2 job.sh", "-pe and -l nodes= (or select=) both say how many cores"),
        ("-j maybe job.sh", "'maybe' is neither y nor n"),
        ("-m xyz job.sh", "'xyz' must be made of a"),
        ("-M a,b job.sh", "Slurm writes to one address"),
        ("-t ten job.sh", "'ten' is no range of tasks"),
        ("-tc 3 job.sh", "give its range with -t"),
        ("-p high job.sh", "'high' is not a whole number"),
        ("-v 1x=2 job.sh", "'1x' is not the name of a variable"),
        ("-a tomorrow job.sh", "'tomorrow' is not a time"),
        ("-W stagein=x job.sh", "'stagein' is not translated"),
        ("-W depend=on:2 job.sh", "only after, afterok, afternotok and afterany"),
        ("-N a/b job.sh", "has no '/'"),
        ("-b y", "-b y needs a command"),
    ],
)
def test_what_has_no_equal_is_an_error_that_names_it_and_the_slurm_way(line, text):
    found = complaints(line)
    assert len(found) == 1
    assert text in found[0]


def test_all_problems_are_told_at_once_with_their_place():
    script = "#!/bin/sh\n#$ -pe mpi 0\n#PBS -l nodes=x:y=1\n#$ -bar 3 -j y oops\n"
    assert [problem.partition(":")[0] for problem in complaints("job.sh", script)] == [
        "job.sh, line 4",
        "job.sh, line 4",
        "job.sh, line 2",
        "job.sh, line 3",
    ]
    assert len(complaints("-foo 1 -I -bar job.sh")) == 3


def test_a_script_that_cant_be_read_is_named():
    def read(path):
        raise FileNotFoundError(2, "No such file or directory", path)

    assert qsub.translate(["job.sh"], read)[1] == ["job.sh: No such file or directory; a program needs -b y."]


def test_variables_reach_the_job_with_their_commas():
    job, problems = qsub.translate(["-v", "A=1,B='x,y',C,D=\"p q\"", "job.sh"], lambda path: "")
    assert problems == []
    assert job.environment == {"A": "1", "B": "x,y", "D": "p q"}


def test_the_script_is_sent_untouched_below_two_lines_of_our_own():
    job, problems = qsub.translate(
        ["-pe", "mpi", "2", "job.sh", "an argument"], lambda path: "#!/usr/bin/env python3\n1\n"
    )
    assert problems == []
    assert qsub.script_text(job) == (
        "#!/bin/sh\n"
        "exec /usr/local/bin/qsub --in-job mpi \"$0\" /usr/bin/env python3 -- 'an argument'\n"
        "# The job's script, as it was submitted:\n"
        "#!/usr/bin/env python3\n1\n"
    )


@pytest.mark.parametrize(
    ("line", "script", "program"),
    [("", "echo\n", "/bin/bash"), ("", "#!/bin/csh -f\n", "/bin/csh -f"), ("-S /bin/zsh", "#!/bin/csh\n", "/bin/zsh")],
)
def test_the_script_is_run_by_what_the_user_named(line, script, program):
    job, _problems = qsub.translate([*line.split(), "job.sh"], lambda path: script)
    assert f'"$0" {program} --\n' in qsub.script_text(job)


def test_lines_for_sbatch_are_passed_on():
    job, _problems = qsub.translate(["job.sh"], lambda path: "#!/bin/sh\n#SBATCH --constraint=fast\n#$ -N x\n")
    assert qsub.script_text(job).splitlines()[:2] == ["#!/bin/sh", "#SBATCH --constraint=fast"]


def test_a_command_needs_no_script():
    job, problems = qsub.translate(["-b", "y", "-N", "x", "echo", "a b", "-n"], lambda path: "never read")
    assert problems == []
    assert qsub.script_text(job) == "#!/bin/sh\nexec /usr/local/bin/qsub --in-job NONE \"$0\" -- echo 'a b' -n\n"


def test_a_job_waits_for_numbers_names_and_patterns_but_not_for_what_is_over():
    def run(argv):
        return "12\n12\n15\n" if "--states=all" in argv else "20 prepare\n21 prep two\n22 other\n"

    job, problems = qsub.translate(
        ["-hold_jid", "12,99,prep*", "-hold_jid_ad", "15", "-W", "depend=afterok:12.head:77", "job.sh"], lambda path: ""
    )
    assert problems == []
    assert qsub.dependencies(job.wait_for, run) == [
        "afterany:12", "afterany:20", "afterany:21", "aftercorr:15", "afterok:12", "afterok:77",
    ]  # fmt: skip


def test_a_job_finds_the_variables_of_grid_engine_and_pbs():
    slurm = {
        "SLURM_JOB_ID": "8",
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_ARRAY_TASK_MIN": "1",
        "SLURM_ARRAY_TASK_MAX": "9",
        "SLURM_ARRAY_TASK_STEP": "2",
        "SLURM_JOB_NAME": "x",
        "SLURM_JOB_PARTITION": "main",
        "SLURM_TASKS_PER_NODE": "2(x2),1",
        "SLURM_CPUS_PER_TASK": "2",
    }
    environment, lines = qsub.job_environment(slurm, ["n1", "n2", "n3"], "mpi")
    assert lines == (
        "n1 4 main@n1 UNDEFINED\n"
        "n2 4 main@n2 UNDEFINED\n"
        "n3 2 main@n3 UNDEFINED\n"
    )  # fmt: skip
    wanted = {"JOB_ID": "7", "NSLOTS": "10", "NHOSTS": "3", "PE": "mpi", "QUEUE": "main", "SGE_TASK_ID": "3"}
    wanted |= {"SGE_TASK_LAST": "9", "PBS_JOBID": "7[3]", "PBS_ARRAYID": "3", "PBS_NP": "10", "PBS_NUM_PPN": "4"}
    assert {name: environment[name] for name in wanted} == wanted


def test_a_job_that_is_no_array_says_so():
    environment, lines = qsub.job_environment({"SLURM_JOB_ID": "8", "SLURM_TASKS_PER_NODE": "1"}, ["n1"], "NONE")
    assert environment["SGE_TASK_ID"] == "undefined"
    assert "PBS_ARRAYID" not in environment
    assert lines.startswith("n1 1 ")
