# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm import queue_views
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.queue_views import Refused, qdel, qhost, qstat

# Recorded from Slurm 22.05.8.
SQUEUE = """\
12|3,5,7%1|PENDING|alice|main|1|N/A|2026-11-22T09:34:16||0.99998473888263|JobArrayTaskLimit|(null)|UNLIMITED|100M|/shared|arr
13|N/A|PENDING|bob|long|1|N/A|2026-11-22T09:34:16||0.99998473864980|Dependency|chem|UNLIMITED|100M|/shared|after
10|N/A|RUNNING|alice|main|1|2026-11-22T09:34:17|2026-11-22T09:34:16|a12|0.99998473934829|None|(null)|1:00:00|100M|/shared|sl
11|N/A|RUNNING|alice|main|4|2026-11-22T09:34:17|2026-11-22T09:34:16|a12,b12,c12|0.99998473911546|None|(null)|UNLIMITED|100M|/shared|wide|job
12|1|RUNNING|alice|main|1|2026-11-22T09:34:17|2026-11-22T09:34:16|c12|0.99998473888263|None|(null)|UNLIMITED|100M|/shared|arr
"""
NODE = (
    "NodeName=a12 Arch=x86_64 CoresPerSocket=2  CPUAlloc=2 CPUEfctv=2 CPUTot=2 CPULoad=3.59 Gres=(null)"
    " NodeHostName=a12 Version=22.05.8 RealMemory=16000 AllocMem=200 FreeMem=7907 Sockets=1 Boards=1 State=ALLOCATED"
    " ThreadsPerCore=1 Partitions=main,long  CfgTRES=cpu=2,mem=1000M,billing=2 AllocTRES=cpu=2,mem=200M\n"
)
# A node that never answered has neither architecture nor load.
DEAD = (
    "NodeName=b12 CoresPerSocket=2 CPUAlloc=0 CPUTot=2 CPULoad=N/A RealMemory=1000 FreeMem=N/A Sockets=1 State=DOWN*\n"
)
OUTPUT = {
    "squeue": SQUEUE,
    "scontrol": NODE + DEAD,
    "sinfo --noheader --format=%R|%C": "main|6/0/2/8\n",
    "sinfo --noheader --Node --format=%N|%P|%C|%O|%T": (
        "a12|main*|2/0/0/2|3.59|allocated\nb12|main*|0/0/2/2|N/A|down*\n"
    ),
}


class Tools:
    """Slurm's tools with recorded answers; ``called`` keeps what else was asked of them."""

    def __init__(self):
        self.called = []

    def __call__(self, argv):
        if argv[0] == "scancel":
            self.called.append(argv[1:])
            return 0, "", ""
        return 0, OUTPUT.get(" ".join(argv), OUTPUT.get(argv[0])), ""


def rows(text):
    return [line.split() for line in text.splitlines()[2:]]


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ("", ["10", "11", "12", "12"]),
        ("-u bob", ["13"]),
        ("-u *", ["10", "11", "12", "12", "13"]),
        ("-u alice,bob -s p", ["12", "13"]),
        ("-s h -u *", ["13"]),
        ("-s r", ["10", "11", "12"]),
        ("-s pr", ["10", "11", "12", "12"]),
        ("-q long -u *", ["13"]),
        ("11.head 13", ["11", "13"]),
        ("-u carol", []),
    ],
)
def test_qstat_shows_the_jobs_that_were_asked_for(line, numbers):
    assert [row[0] for row in rows(qstat(line.split(), Tools(), "alice"))] == numbers


def test_qstat_shows_state_time_place_and_slots_as_grid_engine_does():
    by_state = {tuple(row[:3] + row[4:]) for row in rows(qstat(["-u", "*"], Tools(), "alice"))}
    assert ("10", "0.99998", "sl", "r", "11/22/2026", "09:34:17", "main@a12", "1") in by_state
    assert ("11", "0.99998", "wide|job", "r", "11/22/2026", "09:34:17", "main@a12", "4") in by_state
    assert ("12", "0.99998", "arr", "qw", "11/22/2026", "09:34:16", "1", "3,5,7%1") in by_state
    assert ("12", "0.99998", "arr", "r", "11/22/2026", "09:34:17", "main@c12", "1", "1") in by_state
    assert ("13", "0.99998", "after", "hqw", "11/22/2026", "09:34:16", "1") in by_state


def test_qstat_says_nothing_if_there_is_no_job():
    assert qstat([], lambda argv: (0, "", ""), "alice") == ""


def test_qstat_f_shows_each_node_with_its_jobs_and_those_that_wait_below():
    text = qstat(["-f"], Tools(), "alice")
    places = [
        text.index(part) for part in ("main@a12 ", " 10 ", "main@b12 ", "SEVERAL NODES", " 11 ", "PENDING", " 13 ")
    ]
    assert places == sorted(places)
    assert "down*" in text


def test_qstat_j_shows_one_job_by_number_or_name():
    assert "owner:                      bob\n" in qstat(["-j", "13"], Tools(), "alice")
    text = qstat(["-j", "wide*"], Tools(), "alice")
    assert "job_name:                   wide|job\n" in text
    assert "(null)" not in text
    assert "scheduling info:            JobArrayTaskLimit\n" in qstat(["-j", "12"], Tools(), "alice")


def test_qstat_g_c_sums_up_the_partitions():
    assert rows(qstat(["-g", "c"], Tools(), "alice")) == [["main", "6", "0", "0", "8", "2"]]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: qstat(["-xml"], Tools(), "alice"), "The Slurm way: squeue --json."),
        (lambda: qstat(["-uu"], Tools(), "alice"), "did you mean -u? See 'squeue --help'"),
        (lambda: qstat(["-j", "99"], Tools(), "alice"), "See 'sacct --jobs=99'"),
        (lambda: qstat(["-s", "z"], Tools(), "alice"), "The Slurm way: sacct."),
        (lambda: qstat(["-s", "x"], Tools(), "alice"), "-s x is not known"),
        (lambda: qstat(["-g", "t"], Tools(), "alice"), "only -g c is"),
        (lambda: qstat(["-u"], Tools(), "alice"), "option -u needs a value"),
        (lambda: qstat([], lambda argv: (1, "", "slurm_load_jobs error\n"), "alice"), "slurm_load_jobs error"),
        (lambda: qdel([], Tools(), "alice"), "name the jobs"),
        (lambda: qdel(["-x", "1"], Tools(), "alice"), "See 'scancel --help'"),
        (lambda: qhost(["-j"], Tools()), "See 'sinfo --help'"),
        (lambda: qhost(["a12"], Tools()), "-h HOST,HOST chooses hosts"),
    ],
)
def test_what_can_t_be_done_is_an_error_that_names_the_slurm_way(call, text):
    with pytest.raises(Refused, match=re.escape(text)):
        call()


@pytest.mark.parametrize(
    ("line", "cancelled"),
    [
        ("10", [["10"]]),
        ("10,12 10", [["10"], ["12"]]),
        ("12.3", [["12_[3]"]]),
        ("12[3-5]", [["12_[3-5]"]]),
        ("-t 3-5 12", [["12_[3-5]"]]),
        ("10.head", [["10"]]),
        ("10.head.lab.internal", [["10"]]),
        ("wide*", [["11"]]),
        ("-u bob", [["13"]]),
        ("-f 10", [["--signal=KILL", "10"]]),
    ],
)
def test_qdel_cancels_what_was_named(line, cancelled):
    tools = Tools()
    text, complete = qdel(line.split(), tools, "alice")
    assert complete
    assert tools.called == cancelled
    assert "alice has registered the job" in text


@pytest.mark.parametrize("name", ["99", "after"])
def test_qdel_denies_what_is_not_there_or_of_others_and_deletes_the_rest(name):
    tools = Tools()
    text, complete = qdel([name, "10"], tools, "alice")
    assert not complete
    assert text.splitlines() == [
        f'denied: job "{name}" does not exist',
        "alice has registered the job 10 for deletion",
    ]
    assert tools.called == [["10"]]


def test_qdel_passes_on_what_slurm_refuses():
    def run(argv):
        return (0, SQUEUE, "") if argv[0] == "squeue" else (1, "", "Access/permission denied\n")

    assert qdel(["13"], run, "alice") == ("job 13: Access/permission denied\n", False)


def test_qhost_shows_hardware_load_and_state():
    assert rows(qhost([], Tools()))[1:] == [
        ["a12", "lx-amd64", "2", "1", "2", "2", "3.59", "15.6G", "7.9G", "allocated"],
        ["b12", "-", "2", "1", "2", "2", "-", "1000.0M", "-", "down*"],
    ]


def test_qhost_q_shows_the_partitions_of_chosen_hosts():
    assert [row[0] for row in rows(qhost(["-q", "-h", "a12"], Tools()))] == ["global", "a12", "main", "long"]


def test_a_line_that_is_cut_off_is_left_out():
    assert queue_views.parse_jobs("1|2|3\n") == []
