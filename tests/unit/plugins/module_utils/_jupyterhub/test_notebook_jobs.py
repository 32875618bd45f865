# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._jupyterhub import notebook_jobs as jobs

RUNNING = "RUNNING|None|node1|node[1-2]|main|2026-11-22T10:00:00\n"
PENDING = "PENDING|Resources|n/a||main|2026-11-22T12:00:00\n"
POWERING = "CONFIGURING|None|n/a|cloud[1-2]|main|2026-11-22T10:00:00\n"


@pytest.mark.parametrize(
    ("code", "out", "err", "state"),
    [
        (0, RUNNING, "", "running"),
        (0, PENDING, "", "pending"),
        (0, POWERING, "", "pending"),
        (0, RUNNING.replace("RUNNING", "CANCELLED"), "", "ended"),
        (0, RUNNING.replace("RUNNING", "NODE_FAIL"), "", "ended"),
        (0, RUNNING.replace("RUNNING", "TIMEOUT"), "", "ended"),
        (0, RUNNING.replace("RUNNING", "COMPLETING"), "", "running"),
        (0, "", "", "ended"),
        (1, "", "slurm_load_jobs error: Invalid job id specified\n", "ended"),
        (1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", "unknown"),
        (1, "", "slurm_load_jobs error: Socket timed out on send/recv operation\n", "unknown"),
        (127, "", "", "unknown"),
        (124, "", "no answer", "unknown"),
        (0, "squeue: warning of some sort", "", "unknown"),
    ],
)
def test_only_a_clear_word_of_slurm_ends_a_notebook(code, out, err, state):
    assert jobs.state_of(code, out, err) == state


@pytest.mark.parametrize(
    ("out", "place", "nodes", "percent", "text"),
    [
        (
            PENDING,
            "5\n7\n9\n",
            "",
            10,
            "Job 7 waits in partition main, place 2 of 3: the nodes are busy (Resources). "
            "It starts at 2026-11-22 12:00 at the latest.",
        ),
        (
            PENDING.replace("2026-11-22T12:00:00", "N/A"),
            "7\n",
            "",
            10,
            "Job 7 waits in partition main: the nodes are busy (Resources).",
        ),
        (
            PENDING.replace("Resources", "NewReason").replace("2026-11-22T12:00:00", "N/A"),
            "",
            "",
            10,
            "Job 7 waits in partition main (NewReason).",
        ),
        (POWERING, "", "cloud1|allocated#\ncloud2|idle\n", 50, "Job 7: nodes are powering up: cloud1 for 0 s."),
        (POWERING, "", "cloud1|idle\n", 50, "Job 7: its nodes get ready."),
        (RUNNING, "", "", 80, "Job 7 runs on node1. The notebook server starts."),
        ("", "", "", 5, "Job 7: Slurm does not answer. The job is not lost."),
        (
            RUNNING.replace("RUNNING|None", "OUT_OF_MEMORY|OutOfMemory"),
            "",
            "",
            5,
            "Job 7 is out of memory (OutOfMemory).",
        ),
    ],
)
def test_the_pending_page_says_what_the_job_waits_for(out, place, nodes, percent, text):
    assert jobs.Waiting("7").message(jobs.parse_job(out), place, nodes, 0) == (percent, text)


def test_the_pending_page_says_for_how_long_a_node_powers_up():
    waiting = jobs.Waiting("7")
    waiting.message(jobs.parse_job(POWERING), "", "cloud1|alloc#\n", 100)
    _percent, text = waiting.message(jobs.parse_job(POWERING), "", "cloud1|alloc#\ncloud2|alloc%\n", 134)
    assert text == "Job 7: nodes are powering up: cloud1 for 34 s, cloud2 for 0 s."


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        ("ResumeProgram           = /usr/sbin/node-power\nResumeTimeout           = 300 sec\n", 960),
        ("ResumeProgram           = (null)\nResumeTimeout           = 60 sec\n", 660),
        ("", 660),
    ],
)
def test_a_start_may_take_the_queue_and_the_time_that_nodes_need_to_power_up(config, seconds):
    assert jobs.start_timeout(config, 600) == seconds
