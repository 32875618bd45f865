# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.upgrade import (
    Daemon,
    Host,
    Plan,
    parse_candidates,
    parse_daemons,
    parse_installed,
    plan,
)

OLD, NEW = "22.05.8-4+deb12u2", "22.05.8-4+deb12u3"
# Recorded on Debian 12.
INSTALLED = f"""\
libslurm38\t{OLD}\tslurm-wlm\tinstalled
munge\t0.5.15-2\tmunge\tinstalled
slurm-client\t{OLD}\tslurm-wlm\tinstalled
slurmctld\t{OLD}\tslurm-wlm\tinstalled
slurmdbd\t{OLD}\tslurm-wlm\tinstalled
slurmd\t{OLD}\tslurm-wlm\tconfig-files
"""
POLICY = f"""\
libslurm38:
  Installed: {OLD}
  Candidate: {NEW}
  Version table:
     {NEW} 500
        500 http://deb.debian.org/debian bookworm/main amd64 Packages
 *** {OLD} 100
        100 /var/lib/dpkg/status
slurmctld:
  Installed: {OLD}
  Candidate: {NEW}
slurm-client:
  Installed: {OLD}
  Candidate: (none)
"""
UNITS = """\
Id=slurmdbd.service
LoadState=loaded
ActiveState=active
UnitFileState=enabled
MainPID=10

Id=slurmctld.service
LoadState=loaded
ActiveState=failed
UnitFileState=enabled
MainPID=0

Id=slurmd.service
LoadState=not-found
ActiveState=inactive
UnitFileState=
MainPID=0
"""
RUNNING = [Daemon("slurmdbd", True, True), Daemon("slurmctld", True, True), Daemon("slurmd", True, True)]
BOTH = {"slurmctld": OLD, "slurmd": OLD}


def newer(one, other):
    return one > other


def test_what_the_tools_say_is_read():
    assert parse_installed(INSTALLED) == dict.fromkeys(["libslurm38", "slurm-client", "slurmctld", "slurmdbd"], OLD)
    assert parse_candidates(POLICY) == {"libslurm38": NEW, "slurmctld": NEW}
    daemons = parse_daemons(UNITS, lambda pid: pid == 10)
    assert daemons == [Daemon("slurmdbd", True, True, True), Daemon("slurmctld", True, False, False)]


def test_daemons_stop_and_start_in_slurms_order_and_slurmd_is_only_restarted():
    steps = plan(BOTH, dict.fromkeys(BOTH, NEW), newer, RUNNING)
    assert steps.versions == dict.fromkeys(BOTH, NEW)
    assert steps.stop == ("slurmctld", "slurmdbd")
    assert steps.start == ("slurmdbd", "slurmctld", "slurmd")
    assert (steps.before, steps.after) == (OLD, NEW)


def test_nothing_is_done_where_nothing_is_newer():
    assert not plan(BOTH, BOTH, newer, RUNNING)
    assert not plan({"slurmd": NEW}, {"slurmd": OLD}, newer, RUNNING)


@pytest.mark.parametrize(
    "left",
    [Daemon("slurmctld", True, True, replaced=True), Daemon("slurmctld", True, False)],
    ids=["runs the old program", "was stopped"],
)
def test_what_a_run_that_was_cut_off_left_is_started_again(left):
    steps = plan(BOTH, BOTH, newer, [left])
    assert (steps.versions, steps.stop, steps.start) == ({}, (), ("slurmctld",))


def test_a_daemon_that_the_administrator_switched_off_stays_off():
    assert plan(BOTH, dict.fromkeys(BOTH, NEW), newer, [Daemon("slurmd", False, False)]).start == ()


def test_a_step_that_slurm_can_not_take_is_refused():
    with pytest.raises(HpcError, match=r"slurmctld 22.05.8-4.deb12u2\) is of Slurm 22.05, and 24.11 takes over from"):
        plan(BOTH, dict.fromkeys(BOTH, "24.11.5-4"), newer, RUNNING)


class Machine:
    def __init__(self, answers=None):
        self.calls, self.answers = [], answers or {}

    def __call__(self, argv, stdin=None):
        self.calls.append(" ".join(argv))
        return next((answer for start, answer in self.answers.items() if self.calls[-1].startswith(start)), (0, "", ""))


def host(**answers):
    machine = Machine(answers.get("answers"))
    ticks = iter(range(1000))
    return Host(machine, pause=lambda _seconds: None, clock=lambda: next(ticks)), machine


def test_a_node_does_not_overtake_the_controller():
    this, _machine = host(answers={"scontrol show config": (0, "SLURM_VERSION           = 22.05.8\n", "")})
    with pytest.raises(HpcError, match=r"would get Slurm 23.11, and the controller runs 22.05"):
        this.refuse_to_overtake(Plan({"slurmd": "23.11.4-1"}, (), ("slurmd",), OLD, "23.11.4-1"))
    this.refuse_to_overtake(Plan({"slurmd": NEW}, (), ("slurmd",), OLD, NEW))


def test_a_login_host_that_does_not_reach_the_controller_is_upgraded_all_the_same():
    this, machine = host(answers={"scontrol show config": (1, "", "Could not establish a configuration source")})
    this.refuse_to_overtake(Plan({"slurm-client": "23.11.4-1"}, (), (), OLD, "23.11.4-1"))
    assert machine.calls == ["scontrol show config"]
    this.refuse_to_overtake(Plan({"slurm-client": NEW}, (), (), OLD, NEW))
    assert len(machine.calls) == 1, "the same release needs no question"


def test_a_daemon_that_does_not_answer_in_time_is_one_clear_message():
    this, machine = host(answers={"scontrol ping": (0, "Slurmctld(primary) at head is DOWN\n", "")})
    with pytest.raises(HpcError, match=r"slurmctld does not answer 3 s after its upgrade.*journalctl -u slurmctld"):
        this.apply(Plan({}, (), ("slurmctld", "slurmd")), 3)
    assert "systemctl restart slurmd.service" not in machine.calls


def test_the_next_daemon_starts_when_the_one_before_answers():
    this, machine = host(answers={"scontrol ping": (0, "Slurmctld(primary) at head is UP\n", "")})
    this.apply(Plan({}, (), ("slurmdbd", "slurmctld", "slurmd")), 3)
    assert [call for call in machine.calls if call.startswith(("systemctl", "sacctmgr", "scontrol"))] == [
        "systemctl restart slurmdbd.service",
        "sacctmgr --noheader --parsable2 show cluster format=Cluster",
        "systemctl restart slurmctld.service",
        "scontrol ping",
        "systemctl restart slurmd.service",
    ]
