# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from itertools import product

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.node_states import (
    Controller,
    Node,
    parse_jobs,
    parse_nodes,
    plan,
)

# Recorded with Slurm 22.05.8 and 24.11.5, shortened.
NODES = """\
NodeName=n1 Arch=x86_64 CPUAlloc=0 Version=22.05.8 State=IDLE ThreadsPerCore=1 AveWatts=0 ExtSensorsTemp=n/s
NodeName=n2 State=MIXED+DRAIN ExtSensorsTemp=n/s Reason=disk: bad [x] @y [root@2026-11-22T09:33:29]
NodeName=n3 State=DOWN+NOT_RESPONDING AveWatts=0  Reason=Not responding [slurm@2026-11-22T09:33:29]
NodeName=n4 State=IDLE+COMPLETING ThreadsPerCore=1
NodeName=n5 State=DOWN*+DRAIN ThreadsPerCore=1 Reason=old [root@2026-11-22T09:33:29] Comment=x
"""
JOBS = "12|alice|RUNNING|n2|a|b\n13_4|bob|COMPLETING|n4|array\n"


def node(state, reason=""):
    return Node("n", frozenset(state.split("+")), reason)


class Slurm:
    """Shows what was recorded, for each call the next picture; the last one stays."""

    def __init__(self, nodes=(NODES,), jobs=(JOBS,), code=0):
        self.nodes, self.jobs, self.code, self.calls = list(nodes), list(jobs), code, []

    def __call__(self, argv, stdin=None):
        self.calls.append(argv)
        if argv[0] == "squeue":
            return 0, self.jobs.pop(0) if len(self.jobs) > 1 else self.jobs[0], ""
        if argv[1] == "update":
            return self.code, "", "slurm_update error: Invalid node state specified\n" if self.code else ""
        return self.code, self.nodes.pop(0) if len(self.nodes) > 1 else self.nodes[0], ""


def controller(**arguments):
    slurm = Slurm(**arguments)
    ticks = iter(range(1000))
    return Controller(slurm, pause=lambda _seconds: None, clock=lambda: next(ticks)), slurm


def test_states_and_reasons_are_read_as_slurm_writes_them():
    nodes = parse_nodes(NODES)
    assert {name: sorted(item.flags) for name, item in nodes.items()} == {
        "n1": ["IDLE"],
        "n2": ["DRAIN", "MIXED"],
        "n3": ["DOWN", "NOT_RESPONDING"],
        "n4": ["COMPLETING", "IDLE"],
        "n5": ["DOWN", "DRAIN"],
    }
    assert [item.reason for item in nodes.values()] == ["", "disk: bad [x] @y", "Not responding", "", "old"]
    assert [name for name, item in nodes.items() if item.busy] == ["n2", "n4"]


FLAGS = ("", "NOT_RESPONDING", "POWERED_DOWN", "MAINTENANCE", "REBOOT_REQUESTED", "RESERVED", "PLANNED", "INVALID_REG")


@pytest.mark.parametrize(("base", "flag"), list(product(["IDLE", "MIXED", "ALLOCATED", "DOWN", "UNKNOWN"], FLAGS)))
def test_flags_beside_those_of_interest_change_nothing(base, flag):
    plain, drained = node("+".join(filter(None, [base, flag]))), node("+".join(filter(None, [base, flag, "DRAIN"])))
    assert plan([plain], "drain", "why") == ["n"]
    assert plan([drained], "drain", "why") == []
    assert plan([plain], "down", "why") == ([] if base == "DOWN" else ["n"])
    assert plan([plain], "resume", "") == (["n"] if base == "DOWN" else [])
    assert plan([drained], "resume", "") == ["n"]
    assert plain.busy == drained.busy == (base in ("MIXED", "ALLOCATED"))


def test_a_resume_with_a_reason_leaves_alone_what_others_took_out_of_service():
    ours, theirs = node("IDLE+DRAIN", "upgrade"), node("IDLE+DRAIN", "disk is broken")
    assert plan([ours], "resume", "upgrade") == ["n"]
    assert plan([theirs], "resume", "upgrade") == []


def test_many_nodes_are_asked_and_changed_in_one_call():
    slurmctld, slurm = controller()
    slurmctld.nodes(["n1", "n2", "n3"])
    slurmctld.update(["n1", "n2", "n3"], "drain", "a b")
    assert slurm.calls == [
        ["scontrol", "--oneliner", "show", "node", "n[1-3]"],
        ["scontrol", "update", "NodeName=n[1-3]", "State=DRAIN", "Reason=a b"],
    ]


def test_a_node_that_slurm_does_not_know_is_named():
    slurmctld, _slurm = controller(nodes=[NODES + "Node n9 not found\n"])
    with pytest.raises(InvalidInput, match="Slurm knows no node n9"):
        slurmctld.nodes(["n1", "n9"])


@pytest.mark.parametrize(("answer", "known"), [(NODES + "Node n9 not found\n", ["n1"]), ("Node n9 not found\n", [])])
def test_nodes_that_slurm_forgot_already_may_be_left_out(answer, known):
    slurmctld, _slurm = controller(nodes=[answer], code=1)
    assert list(slurmctld.nodes(["n1", "n9"], ignore_unknown=True)) == known


def test_a_controller_that_does_not_answer_is_one_clear_message():
    slurmctld, _slurm = controller(nodes=[""], code=1)
    for ignore_unknown in (False, True):
        with pytest.raises(HpcError, match="scontrol ping"):
            slurmctld.nodes(["n1"], ignore_unknown)
    with pytest.raises(HpcError, match=r"scontrol update NodeName=n1 State=RESUME failed: slurm_update error"):
        slurmctld.update(["n1"], "resume", "")


def test_waiting_ends_when_no_job_holds_the_nodes_and_none_is_completing():
    idle = "NodeName=n4 State=IDLE+DRAIN\n"
    slurmctld, slurm = controller(nodes=["NodeName=n4 State=IDLE+COMPLETING+DRAIN\n", idle], jobs=[JOBS, ""])
    slurmctld.wait_until_idle(["n4"], 60)
    assert [argv[0] for argv in slurm.calls].count("squeue") == 2


def test_after_the_deadline_the_jobs_that_hold_the_nodes_are_named():
    slurmctld, _slurm = controller()
    with pytest.raises(HpcError) as error:
        slurmctld.wait_until_idle(["n2", "n4"], 3)
    assert "job 12 (a|b) of alice, RUNNING on n2; job 13_4 (array) of bob, COMPLETING on n4" in str(error.value)


def test_the_name_of_a_job_may_have_the_separator_in_it():
    assert [job.name for job in parse_jobs(JOBS)] == ["a|b", "array"]
