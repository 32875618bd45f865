# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.decide import Machine
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.engine import (
    Engine,
    Failure,
    SlurmNode,
    groups_of,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.memory import Memory
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.settings import Settings
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError

KINDS = [
    {"name": "small", "nodes": "s[1-4]", "provider": "docker", "host": "p", "batch": 3},
    {"name": "large", "nodes": "l[1-4]", "provider": "docker", "host": "p"},
]
OFF, COMING, UP = "IDLE+CLOUD+POWERED_DOWN", "ALLOCATED+CLOUD+POWERING_UP", "ALLOCATED+CLOUD"
BROKEN = Failure("JoinFailed", "no munge")


class Slurm:
    """A slurmctld that notes what it is told."""

    def __init__(self, default=OFF, **states):
        self.states = {**dict.fromkeys([f"{stem}{n}" for stem in "sl" for n in range(1, 5)], default), "head": "IDLE"}
        self.states.update(states)
        self.reasons = {}
        self.told = []
        self.answers = True

    def nodes(self):
        if not self.answers:
            raise HpcError("no answer")
        return {
            name: SlurmNode(
                name, frozenset(state.split("+")), self.reasons.get(name, ""), ("main",) if name[0] == "s" else ("all",)
            )
            for name, state in self.states.items()
        }

    def down(self, names, reason):
        self.told.append(("down", tuple(names), reason))

    def power_down(self, names):
        self.told.append(("power_down", tuple(names)))

    def partition(self, name, state):
        self.told.append(("partition", name, state))


def engine(slurm, **limits):
    settings = Settings.parse({"kinds": KINDS, "limits": limits})
    return Engine(settings, Memory(heartbeat=1000), slurm, lambda *_a, **_k: None)


def test_nodes_of_a_job_of_several_are_launched_together_and_others_as_they_come():
    groups = groups_of(["s1", "s2", "s3", "l1"], Settings.parse({"kinds": KINDS}), [["s1", "s3"], ["s2"], ["l1", "x"]])
    assert [(g.nodes, g.all_or_nothing) for g in groups] == [(("s1", "s3"), True), (("s2",), False), (("l1",), False)]


def test_a_group_is_no_larger_than_what_the_provider_takes():
    groups = groups_of(["s1", "s2", "s3", "s4", "head"], Settings.parse({"kinds": KINDS}))
    assert [len(group.nodes) for group in groups] == [3, 1]


def test_nothing_is_launched_when_nobody_would_remove_it():
    plan = engine(Slurm(), heartbeat_seconds=300).admit(["s1"], [], 1301)
    assert plan.groups == []
    assert plan.refused["s1"].code == "ReconcilerStale"


def test_more_nodes_than_allowed_are_refused_also_over_several_requests():
    one = engine(Slurm(), max_nodes=3)
    assert not one.admit(["s1", "s2"], [], 1000).refused
    plan = one.admit(["s3", "s4"], [], 1000)
    assert [name for group in plan.groups for name in group.nodes] == ["s3"]
    assert {name: failure.code for name, failure in plan.refused.items()} == {"s4": "LimitNodes"}
    one.failed(plan.refused, 1000)
    assert one.admit(["l1"], [], 1000).refused  # what was refused made no room


def test_a_day_has_so_many_node_hours_and_the_next_day_as_many():
    one = engine(Slurm(UP), max_node_hours_a_day=1, heartbeat_seconds=0)
    running = {"small": dict.fromkeys(["s1", "s2"], Machine.RUNNING), "large": {}}
    one.memory.heartbeat = 100
    one.reconcile(running, (), 100)
    one.reconcile(running, (), 1900)
    assert one.memory.hours == pytest.approx(1)
    assert one.admit(["s3"], [], 1900).refused["s3"].code == "LimitHours"
    assert not one.admit(["s3"], [], 1900 + 86400).refused


def test_a_failure_is_told_once_for_all_nodes_and_only_if_slurm_still_waits_for_them():
    slurm = Slurm(s1=COMING, s2=COMING, s3="IDLE+CLOUD+POWERING_DOWN")
    engine(slurm).failed(dict.fromkeys(["s1", "s2", "s3"], BROKEN), 1000)
    assert slurm.told == [("down", ("s1", "s2"), "(Code:JoinFailed) no munge")]


def test_a_kind_without_room_is_taken_out_of_service_so_that_slurm_takes_another():
    slurm = Slurm(s1=COMING, s2="IDLE+CLOUD+POWERING_DOWN")
    one = engine(slurm, capacity_cool_down_seconds=600)
    one.failed({"s1": Failure("Capacity", "no room")}, 1000)
    assert [call[:2] for call in slurm.told] == [("down", ("s1",)), ("down", ("s3", "s4"))]
    slurm.states.update(dict.fromkeys(["s3", "s4"], "DOWN+CLOUD+POWERED_DOWN"))
    slurm.reasons.update(dict.fromkeys(["s3", "s4"], "(Code:Capacity) no room"))
    slurm.told.clear()
    one.reconcile({"small": {}, "large": {}}, (), 1599)
    assert slurm.told == []
    one.reconcile({"small": {}, "large": {}}, (), 1600)
    assert slurm.told == [("power_down", ("s3", "s4"))]


def test_a_partition_is_closed_after_so_many_failures_and_opened_by_a_success_or_by_hand():
    slurm = Slurm(COMING)
    one = engine(slurm, breaker_failures=3)
    one.failed(dict.fromkeys(["s1", "s2"], BROKEN), 1000)
    assert "partition" not in [call[0] for call in slurm.told]
    one.failed({"s3": BROKEN}, 1001)
    assert slurm.told[-1] == ("partition", "main", "DOWN")
    one.joined(["s4"], {"s4": ("main",)}, 1002)
    assert slurm.told[-1] == ("partition", "main", "UP")
    assert one.memory.failures == {}
    one.failed(dict.fromkeys(["s1", "s2", "s3"], BROKEN), 1003)
    assert one.reset("main")
    assert slurm.told[-1] == ("partition", "main", "UP")


def test_nodes_of_a_partition_that_was_opened_by_hand_wait_no_longer():
    slurm = Slurm(COMING)
    one = engine(slurm, breaker_failures=1, cool_down_seconds=300)
    one.failed({"s1": BROKEN}, 1000)
    slurm.states["s1"], slurm.reasons["s1"] = "DOWN+CLOUD+POWERED_DOWN", "(Code:JoinFailed) no munge"
    one.reset("main")
    slurm.told.clear()
    one.reconcile({"small": {}, "large": {}}, (), 1001)
    assert slurm.told == [("power_down", ("s1",))]


def test_a_closed_partition_stays_closed_when_slurm_was_restarted_or_did_not_hear():
    slurm = Slurm(COMING)
    one = engine(slurm, breaker_failures=1)
    one.failed({"s1": BROKEN}, 1000)
    slurm.told.clear()
    one.reconcile({"small": {}, "large": {}}, ("s1", "s2", "s3", "s4", "l1", "l2", "l3", "l4"), 1060)
    assert slurm.told == [("partition", "main", "DOWN")]


def test_a_success_in_between_starts_the_count_anew():
    one = engine(Slurm(COMING), breaker_failures=3)
    one.failed(dict.fromkeys(["s1", "s2"], BROKEN), 1000)
    one.joined(["s4"], {"s4": ("main",)}, 1001)
    one.failed(dict.fromkeys(["s1", "s2"], BROKEN), 1002)
    assert not one.memory.closed


def test_a_partition_with_fixed_nodes_stays_open_and_its_failed_nodes_stay_down():
    slurm = Slurm(COMING)
    slurm.nodes_before = slurm.nodes
    slurm.nodes = lambda: {**slurm.nodes_before(), "head": SlurmNode("head", frozenset({"IDLE"}), "", ("main",))}
    one = engine(slurm, breaker_failures=2)
    one.failed(dict.fromkeys(["s1", "s2"], BROKEN), 1000)
    assert ("partition", "main", "DOWN") not in slurm.told
    slurm.told.clear()
    slurm.states["s1"], slurm.reasons["s1"] = "DOWN+CLOUD+POWERED_DOWN", "(Code:JoinFailed) no munge"
    one.reconcile({"small": {}, "large": {}}, (), 90000)
    assert slurm.told == []


def test_capacity_closes_no_partition():
    slurm = Slurm(COMING)
    engine(slurm, breaker_failures=1).failed({"s1": Failure("Capacity", "no room")}, 1000)
    assert "partition" not in [call[0] for call in slurm.told]


def test_nothing_is_done_where_one_side_cannot_be_read():
    slurm = Slurm(OFF)
    one = engine(slurm)
    machines = {"small": {"s1": Machine.RUNNING}, "large": None}
    slurm.answers = False
    with pytest.raises(HpcError):
        one.reconcile(machines, (), 5000)
    assert one.memory.heartbeat == 1000
    slurm.answers = True
    one.reconcile(machines, (), 5000)
    work = one.reconcile({"small": None, "large": None}, (), 9000)
    assert work.remove == {}
    assert one.reconcile(machines, (), 9000).remove == {"small": ["s1"]}


def test_a_machine_that_slurm_does_not_know_goes_after_the_grace_time():
    one = engine(Slurm(OFF), orphan_grace_seconds=120)
    machines = {"small": {"old7": Machine.RUNNING}, "large": {}}
    assert one.reconcile(machines, (), 5000).remove == {}
    assert one.reconcile(machines, (), 5119).remove == {}
    assert one.reconcile(machines, (), 5120).remove == {"small": ["old7"]}


def test_a_start_that_was_cut_off_is_taken_up_three_times_and_then_given_up():
    slurm = Slurm(OFF, s1=COMING)
    one = engine(slurm, orphan_grace_seconds=10, launch_attempts=3)
    nothing = {"small": {}, "large": {}}
    assert one.reconcile(nothing, ("s1",), 1000).launch == []
    launches = [one.reconcile(nothing, (), 1000 + 60 * number).launch for number in range(1, 6)]
    assert launches == [["s1"], ["s1"], ["s1"], [], []]
    assert ("LaunchLost" in slurm.told[0][2], slurm.told[0][1]) == (True, ("s1",))


def test_ten_thousand_idle_nodes_leave_nothing_to_remember():
    settings = Settings.parse({"kinds": [{"name": "k", "nodes": "n[1-10000]", "provider": "docker", "host": "p"}]})
    slurm = Slurm()
    off = frozenset(OFF.split("+"))
    slurm.nodes = lambda: {name: SlurmNode(name, off) for name in settings.kinds[0].nodes}
    one = Engine(settings, Memory(), slurm, lambda *_a, **_k: None)
    one.reconcile({"k": {}}, (), 1000)
    assert one.memory.nodes == {}


def test_a_node_that_fails_again_waits_again():
    slurm = Slurm(s1="DOWN+CLOUD+POWERED_DOWN")
    slurm.reasons["s1"] = "(Code:JoinFailed) no munge"
    one = engine(slurm, cool_down_seconds=300)
    told = []
    for now in (1000, 1299, 1300, 1310, 1609, 1610):
        slurm.told.clear()
        one.reconcile({"small": {}, "large": {}}, (), now)
        told += [now for call in slurm.told if call == ("power_down", ("s1",))]
    assert told == [1300, 1610]


def test_only_a_machine_that_is_missing_twice_in_a_row_is_lost():
    slurm = Slurm(OFF, s1=UP)
    one = engine(slurm, missing_rounds=2)
    for number, found in enumerate(({}, {"s1": Machine.RUNNING}, {})):
        one.reconcile({"small": found, "large": {}}, (), 1000 + 60 * number)
    assert slurm.told == []
    one.reconcile({"small": {}, "large": {}}, (), 1180)
    assert [call[:2] for call in slurm.told] == [("down", ("s1",))]


def test_the_grace_time_of_a_machine_begins_when_slurm_wants_it_no_more():
    slurm = Slurm(OFF, s1=UP)
    one = engine(slurm, orphan_grace_seconds=120)
    running = {"small": {"s1": Machine.RUNNING}, "large": {}}
    one.reconcile(running, (), 1000)
    slurm.states["s1"] = OFF
    assert [one.reconcile(running, (), now).remove for now in (5000, 5119, 5120)] == [{}, {}, {"small": ["s1"]}]


def test_what_slurm_has_up_or_a_request_brings_counts_before_the_machine_is_listed():
    one = engine(Slurm(OFF, s1=UP, s2=COMING, l1="DOWN+CLOUD"), max_nodes=4)
    one.reconcile({"small": {}, "large": {}}, ("s2", "s3", "head"), 1000)
    assert list(one.admit(["s4", "l2"], [], 1000).refused) == ["l2"]
