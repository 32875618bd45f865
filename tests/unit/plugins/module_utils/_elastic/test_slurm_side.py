# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.slurm_side import Scontrol, parse
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError

# Recorded with Slurm 22.05.8, shortened.
NODES = """\
NodeName=head Arch=x86_64 State=IDLE ThreadsPerCore=1 Partitions=main  BootTime=2026-11-22T05:56:00 ExtSensorsTemp=n/s
NodeName=x1 CoresPerSocket=1 State=DOWN+CLOUD+NOT_RESPONDING+POWERING_UP Partitions=x,y  \
Reason=(Code:Capacity) no room [root@2026-11-22T12:59:23]
NodeName=x2 State=ALLOCATED+CLOUD+POWERED_DOWN Partitions=x
"""


def scontrol(code=0, out="", err=""):
    calls = []

    def run(argv, stdin=None):
        calls.append(argv)
        return code, out, err

    return Scontrol(run), calls


def test_states_reasons_and_partitions_are_read():
    nodes = parse(NODES)
    assert nodes["x1"].flags == {"DOWN", "CLOUD", "NOT_RESPONDING", "POWERING_UP"}
    assert nodes["x1"].reason == "(Code:Capacity) no room"
    assert nodes["x1"].partitions == ("x", "y")
    assert nodes["x2"].reason == ""
    assert "CLOUD" not in nodes["head"].flags


def test_a_slurmctld_that_does_not_answer_is_an_error_and_not_a_cluster_without_nodes():
    for answer in (
        (1, "", "slurm_load_node error: Unable to contact slurm controller"),
        (0, "", ""),
        (0, "", "slurm_load"),
    ):
        with pytest.raises(HpcError):
            scontrol(*answer)[0].nodes()


def test_many_nodes_take_one_call():
    side, calls = scontrol()
    names = [f"n{number}" for number in range(1, 1001)]
    side.down(names, "(Code:X) y")
    side.power_down(names)
    side.addresses({"n1": "10.0.0.1", "n2": "10.0.0.9"})
    side.addresses({})
    assert calls == [
        ["scontrol", "update", "NodeName=n[1-1000]", "State=DOWN", "Reason=(Code:X) y"],
        ["scontrol", "update", "NodeName=n[1-1000]", "State=POWER_DOWN_FORCE"],
        ["scontrol", "update", "NodeName=n1,n2", "NodeAddr=10.0.0.1,10.0.0.9"],
    ]
