# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever the cloud does and wherever a run is cut off: the next run completes it, and destroy leaves nothing.

The long tests play 200 schedules of faults instead of a few, and cut runs off after each call. The short ones do so
after each call that changes something, and creations are then completed or destroyed in turn.
"""

from __future__ import annotations

import os
import signal

import pytest

pytest.importorskip("alibabacloud_ecs20140526", reason="pip install -r requirements-alicloud.txt")

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.alicloud import AlicloudProvider
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import expand_spec
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.cloud import Timing
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.plan import plan, plan_absent
from clusters import LONG
from standins.alicloud_standin import Clock, Faults, StandIn
from standins.alicloud_standin.use import api_of, parameters

SEEDS = 200 if LONG else 5
HEAD = {"volumes": [{"name": "shared", "path": "/shared", "size_gb": 40}]}


class Run:
    """A run of the module, with a time of its own: no wait takes any."""

    def __init__(self, endpoint: str) -> None:
        clock = Clock(0)
        timing = Timing(clock=clock.now, sleep=clock.advance)
        self.provider = AlicloudProvider(api_of(endpoint), timing, reach=lambda _address, _port: None)

    def present(self, count: int) -> int:
        spec = expand_spec(parameters(head=HEAD, node={"count": count, "placement": "spread"}))
        state = self.provider.discover("demo")
        problems = self.provider.check(spec, state)
        if problems:
            raise HpcError(str(problems))
        return len(self.provider.apply(plan(self.provider.desired(spec), state)))

    def absent(self) -> int:
        return len(self.provider.apply(plan_absent(self.provider.discover("demo"))))


def whole(standin: StandIn, count: int) -> None:
    """Check that the account has what was asked for, once, and that a run finds nothing to do."""
    assert {kind: len(ids) for kind, ids in standin.account.made().items()} == {
        "vpc": 1, "vswitch": 2, "group": 2, "eip": 1, "nat": 1, "snat": 1, "placement": 1,
        "instance": count + 1, "disk": count + 2,
    }  # fmt: skip
    found = {thing.data["HostName"]: thing.data["Address"] for thing in standin.account.of("instance")}
    assert found == {"head": "10.20.0.10", **{f"node{n}": f"10.20.0.{137 + n}" for n in range(1, count + 1)}}
    (volume,) = [disk for disk in standin.account.of("disk") if disk.data["Type"] == "data"]
    assert standin.account.things[volume.data["Instance"]].data["HostName"] == "head"
    assert Run(standin.endpoint).present(count) == 0


def stubbornly(standin: StandIn, step: str, *arguments: int) -> None:
    """Run until it works; every failure must be an error that says something, not another exception."""
    errors: list[str] = []
    while len(errors) < 12:
        try:
            getattr(Run(standin.endpoint), step)(*arguments)
            break
        except HpcError as error:
            errors.append(str(error))
    assert len(errors) < 12, errors
    assert all("Alibaba Cloud" in text or "machine" in text for text in errors), errors


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_cluster_survives_a_schedule_of_faults(seed):
    faults = Faults(seed, rate=0.05 + 0.3 * (seed % 5) / 4, lag=(0, 3, 8)[seed % 3])
    quiet = Faults()
    with StandIn(faults=faults) as standin:
        for count in (3, 5, 1):
            standin.faults = faults
            stubbornly(standin, "present", count)
            standin.faults = quiet
            standin.account.clock.advance(60)
            whole(standin, count)
        standin.faults = faults
        stubbornly(standin, "absent")
        standin.faults = quiet
        standin.account.clock.advance(60)
        assert standin.account.made() == {}
        assert standin.broken == []


def in_a_process_of_its_own(standin: StandIn, kill_after: int, step: str, *arguments: int) -> None:
    """Run a step, and kill it without mercy when the cloud has carried out that many of its calls."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            getattr(Run(standin.endpoint), step)(*arguments)
            status = 0
        finally:
            os._exit(status)
    standin.faults = Faults(kill_after=kill_after, killer=lambda: os.kill(pid, signal.SIGKILL))
    # A run that found less to wait for than the one that was counted may be through by then.
    assert os.waitpid(pid, 0)[1] in (signal.SIGKILL, 0)
    standin.faults = Faults()


def calls_to_be_killed_after(standin: StandIn) -> list[int]:
    """Return the numbers of the calls that a run has made."""
    names = [action for action, _flat, _outcome in standin.log]
    changing = [n for n, name in enumerate(names, start=1) if not name.startswith(("Describe", "Get"))]
    return list(range(1, len(names) + 1)) if LONG else changing


def test_a_creation_that_is_killed_after_any_call_is_completed_by_the_next_run():
    with StandIn() as standin:
        Run(standin.endpoint).present(3)
        numbers = calls_to_be_killed_after(standin)
    assert len(numbers) > 15
    for number in numbers if LONG else numbers[::2]:
        with StandIn() as standin:
            in_a_process_of_its_own(standin, number, "present", 3)
            Run(standin.endpoint).present(3)
            whole(standin, 3)


def test_a_cluster_whose_creation_was_killed_after_any_call_is_destroyed_whole():
    with StandIn() as standin:
        Run(standin.endpoint).present(3)
        numbers = calls_to_be_killed_after(standin)
    for number in numbers if LONG else numbers[1::2]:
        with StandIn() as standin:
            in_a_process_of_its_own(standin, number, "present", 3)
            Run(standin.endpoint).absent()
            assert standin.account.made() == {}, number


def test_a_destruction_that_is_killed_after_any_call_is_completed_by_the_next_run():
    with StandIn() as standin:
        Run(standin.endpoint).present(3)
        standin.log.clear()
        Run(standin.endpoint).absent()
        numbers = calls_to_be_killed_after(standin)
    assert len(numbers) > 10
    for number in numbers:
        with StandIn() as standin:
            Run(standin.endpoint).present(3)
            in_a_process_of_its_own(standin, number, "absent")
            Run(standin.endpoint).absent()
            assert standin.account.made() == {}, number


def test_a_change_of_the_count_that_is_killed_after_any_call_is_completed_by_the_next_run():
    for before, after in ((2, 4), (4, 2)):
        with StandIn() as standin:
            Run(standin.endpoint).present(before)
            standin.log.clear()
            Run(standin.endpoint).present(after)
            numbers = calls_to_be_killed_after(standin)
        for number in numbers:
            with StandIn() as standin:
                Run(standin.endpoint).present(before)
                in_a_process_of_its_own(standin, number, "present", after)
                Run(standin.endpoint).present(after)
                whole(standin, after)
