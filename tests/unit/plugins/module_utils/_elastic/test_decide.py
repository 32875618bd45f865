# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from itertools import combinations, product

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.decide import (
    Intent,
    Machine,
    Sight,
    Verb,
    code_of,
    coded,
    decide,
    intent,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.settings import Limits

LIMITS = Limits(orphan_grace_seconds=120, missing_rounds=2, launch_attempts=3)
BASES = ("ALLOCATED", "DOWN", "ERROR", "FUTURE", "IDLE", "MIXED", "UNKNOWN")
POWER = ("POWERED_DOWN", "POWERING_DOWN", "POWERING_UP", "POWER_DOWN", "POWER_UP")
OTHER = ("CLOUD", "COMPLETING", "DRAIN", "INVALID_REG", "NOT_RESPONDING", "RESERVED")
REASONS = ("", "(Code:Capacity) no room", "Not responding", "ResumeTimeout reached", "new disks")
EXISTS = (Machine.STARTING, Machine.RUNNING, Machine.STOPPED)


def subsets(items, most):
    return [frozenset(chosen) for number in range(most + 1) for chosen in combinations(items, number)]


def every_sight():
    """All base states with all combinations of power flags, up to two other flags, all machines, reasons and levels."""
    flags = [
        frozenset({base}) | power | other
        for base, power, other in product(BASES, subsets(POWER, len(POWER)), subsets(OTHER, 2))
    ]
    rest = product((None, *Machine), REASONS, ("create", "power"), (False, True), ((0, 0), (500, 0), (500, 5)))
    rest = list(rest)
    for number, found in enumerate(flags):
        # All of `rest` for each would be two million; each is met by hundreds of states, and each state meets a part.
        for machine, reason, level, in_flight, (age, times) in rest[number % 11 :: 11]:
            yield Sight(found, machine, reason, level, in_flight, age, times, times, age > 0)


def test_no_combination_of_states_breaks_a_rule():
    seen = set()
    for sight in every_sight():
        verb = decide(sight, LIMITS).verb
        seen.add(verb)
        flags, wanted = sight.flags, intent(sight.flags)
        ours = "DOWN" in flags and bool(code_of(sight.reason))
        slurms = "DOWN" in flags and sight.reason in ("Not responding", "ResumeTimeout reached")
        if verb != Verb.NOTHING:
            assert "CLOUD" in flags, sight  # a fixed node is never touched
            assert sight.machine is not None, sight  # nothing is done blindly
            assert not sight.in_flight, sight  # nothing is done twice
            assert not flags & {"FUTURE", "UNKNOWN"}, sight
        if verb == Verb.REMOVE:
            assert sight.machine in EXISTS, sight
            assert wanted in (Intent.OFF, Intent.GOING) or ours or slurms, sight  # never under a node that is wanted
            assert sight.age >= LIMITS.orphan_grace_seconds or ours, sight
        if verb == Verb.FAIL:
            assert "DOWN" not in flags, sight
            assert decide(sight, LIMITS).code, sight
        if verb == Verb.POWER_DOWN:
            stranded = {"IDLE", "POWERED_DOWN", "NOT_RESPONDING"} <= flags
            assert ours or slurms or stranded, sight  # what an administrator took down stays down
            assert sight.usable or stranded, sight
            assert sight.machine not in (Machine.STARTING, Machine.RUNNING), sight
        if verb == Verb.LAUNCH:
            assert wanted == Intent.COMING, sight
    assert seen == set(Verb)


def test_an_orphan_and_a_failed_node_are_dealt_with_whatever_other_flags_they_have():
    for other in subsets(OTHER, len(OTHER)):
        flags = other | {"CLOUD"}
        orphan = Sight(flags | {"IDLE", "POWERED_DOWN"}, Machine.RUNNING, age=500)
        assert decide(orphan, LIMITS).verb == Verb.REMOVE, flags
        failed = Sight(flags | {"DOWN", "POWERED_DOWN"}, Machine.ABSENT, "(Code:X) y")
        assert decide(failed, LIMITS).verb == Verb.POWER_DOWN, flags
        lost = Sight(flags | {"ALLOCATED"}, Machine.ABSENT, missing=2)
        assert decide(lost, LIMITS).verb == Verb.FAIL, flags


@pytest.mark.parametrize(
    ("state", "machine", "more", "verb", "code"),
    [
        ("IDLE+POWERED_DOWN", Machine.ABSENT, {}, Verb.NOTHING, ""),
        ("IDLE+POWERED_DOWN", Machine.RUNNING, {"age": 119}, Verb.NOTHING, ""),
        ("IDLE+POWERED_DOWN", Machine.RUNNING, {"age": 120}, Verb.REMOVE, ""),
        ("IDLE+POWERED_DOWN", Machine.GOING, {"age": 500}, Verb.NOTHING, ""),
        ("IDLE+POWERED_DOWN", Machine.STOPPED, {"age": 500}, Verb.REMOVE, ""),
        ("IDLE+POWERED_DOWN", Machine.STOPPED, {"age": 500, "level": "power"}, Verb.NOTHING, ""),
        ("IDLE+POWERED_DOWN", None, {"age": 500}, Verb.NOTHING, ""),
        ("IDLE+POWERING_DOWN", Machine.RUNNING, {"age": 20}, Verb.NOTHING, ""),
        ("IDLE+POWERING_DOWN", Machine.RUNNING, {"age": 200}, Verb.REMOVE, ""),
        ("ALLOCATED+POWERING_UP", Machine.ABSENT, {"age": 200, "in_flight": True}, Verb.NOTHING, ""),
        ("ALLOCATED+POWERING_UP", Machine.ABSENT, {"age": 20}, Verb.NOTHING, ""),
        ("ALLOCATED+POWERING_UP", Machine.ABSENT, {"age": 200}, Verb.LAUNCH, ""),
        ("ALLOCATED+POWERING_UP", Machine.RUNNING, {"age": 200}, Verb.LAUNCH, ""),
        ("ALLOCATED+POWERING_UP", Machine.ABSENT, {"age": 200, "attempts": 3}, Verb.FAIL, "LaunchLost"),
        ("ALLOCATED", Machine.RUNNING, {"age": 9000}, Verb.NOTHING, ""),
        ("ALLOCATED", Machine.ABSENT, {"missing": 1}, Verb.NOTHING, ""),
        ("ALLOCATED", Machine.ABSENT, {"missing": 2}, Verb.FAIL, "MachineLost"),
        ("IDLE+NOT_RESPONDING", Machine.STOPPED, {"missing": 2, "level": "power"}, Verb.FAIL, "MachineLost"),
        ("DOWN", Machine.RUNNING, {"reason": "new disks", "age": 500}, Verb.NOTHING, ""),
        ("DOWN+POWERED_DOWN", Machine.ABSENT, {"reason": "new disks", "age": 500}, Verb.NOTHING, ""),
        ("DOWN+POWERING_UP", Machine.RUNNING, {"reason": "(Code:JoinFailed) x"}, Verb.REMOVE, ""),
        ("DOWN+POWERING_UP", Machine.ABSENT, {"reason": "(Code:JoinFailed) x", "usable": False}, Verb.NOTHING, ""),
        ("DOWN+POWERING_UP", Machine.ABSENT, {"reason": "(Code:JoinFailed) x"}, Verb.POWER_DOWN, ""),
        ("DOWN+NOT_RESPONDING", Machine.RUNNING, {"reason": "Not responding", "age": 20}, Verb.NOTHING, ""),
        ("DOWN+NOT_RESPONDING", Machine.RUNNING, {"reason": "Not responding", "age": 200}, Verb.REMOVE, ""),
        ("DOWN+POWERED_DOWN", Machine.ABSENT, {"reason": "ResumeTimeout reached"}, Verb.POWER_DOWN, ""),
        ("IDLE+POWERED_DOWN+NOT_RESPONDING", Machine.ABSENT, {}, Verb.POWER_DOWN, ""),
        ("DOWN+POWERING_UP", Machine.ABSENT, {"reason": "new disks", "age": 500}, Verb.NOTHING, ""),
        ("IDLE+DRAIN", Machine.RUNNING, {"age": 500}, Verb.NOTHING, ""),
    ],
)
def test_each_state_has_its_remedy(state, machine, more, verb, code):
    decision = decide(Sight(frozenset(state.split("+")) | {"CLOUD"}, machine, **more), LIMITS)
    assert (decision.verb, decision.code) == (verb, code)


def test_a_reason_keeps_its_code_and_can_be_an_argument_of_scontrol():
    text = coded("Capacity", 'no "room"\nin [eu]  ' + "x" * 400)
    assert code_of(text) == "Capacity"
    assert len(text) <= 240
    assert not set(text) & set("\"'\n[]\\")
    assert code_of("disk (Code:Capacity)") == ""
