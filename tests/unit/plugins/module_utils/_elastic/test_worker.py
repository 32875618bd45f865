# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import threading

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.client import PowerHostError
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.decide import Machine
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.engine import Failure
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.spool import claim, pending, submit
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.worker import (
    Place,
    Worker,
    log_line,
    reconcile,
    remembered,
)


class Host:
    """A power host: what it makes, and what it can't."""

    def __init__(self):
        self.machines = {}
        self.broken = {}
        self.away = False
        self.asked = []
        self.gate = None

    def __call__(self, name, key):
        return self

    def status(self):
        self._reach()
        return dict.fromkeys(self.machines, Machine.RUNNING)

    def resume(self, names):
        self._reach()
        self.asked.append(("resume", *names))
        for name in names:
            if name in self.broken:
                yield {"node": name, "code": self.broken[name], "text": "broken"}
            else:
                self.machines[name] = True
                yield {"node": name, "address": "10.0.0.1", "host_key": "ssh-ed25519 AAAA", "user": "root"}

    def suspend(self, names):
        if self.gate:
            self.gate.wait(10)
        self._reach()
        self.asked.append(("suspend", *names))
        for name in names:
            self.machines.pop(name, None)
            yield {"node": name}

    def _reach(self):
        if self.away:
            raise PowerHostError("HostUnreachable", "no route")


class World:
    def __init__(self, tmp_path):
        self.place = Place(
            tmp_path / "settings.json",
            tmp_path / "profile.json",
            tmp_path / "key",
            tmp_path / "memory.json",
            tmp_path / "lock",
            str(tmp_path / "spool"),
        )
        (tmp_path / "spool").mkdir()
        kind = {"name": "burst", "nodes": "b[1-4]", "provider": "docker", "host": "p"}
        limits = {"orphan_grace_seconds": 10}
        self.place.settings.write_text(json.dumps({"kinds": [kind], "limits": limits}), encoding="utf-8")
        self.place.profile.write_text("{}", encoding="utf-8")
        self.states = dict.fromkeys(["b1", "b2", "b3", "b4"], "ALLOCATED+CLOUD+POWERING_UP")
        self.host = Host()
        self.told = []
        self.joins = {}
        self.now = 1000.0
        self.memory(heartbeat=1000)

    def memory(self, **values):
        self.place.memory.write_text(json.dumps(values), encoding="utf-8")

    def run(self, argv, stdin=None):
        if "show" in argv:
            lines = [f"NodeName={name} State={state} Partitions=main" for name, state in self.states.items()]
            return 0, "\n".join(lines), ""
        self.told.append(" ".join(argv[2:]))
        return 0, "", ""

    def worker(self):
        return Worker(self.place, self.run, lambda: self.now, self.host, lambda _a, node, *_rest: self.joins.get(node))

    def ask(self, verb, nodes):
        submit(verb, nodes, {}, self.place.spool)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_what_was_asked_for_is_made_addressed_and_joined(world):
    world.ask("resume", "b[1-2]")
    world.worker().work()
    assert sorted(world.host.machines) == ["b1", "b2"]
    assert any("NodeAddr=10.0.0.1" in call for call in world.told)
    assert not any("DOWN" in call for call in world.told)
    assert pending(world.place.spool) == []


def test_one_node_that_fails_keeps_no_other_back_and_its_machine_goes(world):
    world.host.broken["b1"] = "Capacity"
    world.joins["b2"] = Failure("JoinFailed", "no munge")
    world.ask("resume", "b[1-3]")
    world.worker().work()
    assert "NodeName=b1 State=DOWN Reason=(Code:Capacity) broken" in world.told
    assert "NodeName=b2 State=DOWN Reason=(Code:JoinFailed) no munge" in world.told
    assert sorted(world.host.machines) == ["b3"]


def test_a_power_host_that_is_away_fails_all_nodes_at_once(world):
    world.host.away = True
    world.ask("resume", "b[1-4]")
    world.worker().work()
    assert "NodeName=b[1-4] State=DOWN Reason=(Code:HostUnreachable) no route" in world.told


def test_a_request_of_a_worker_that_died_is_carried_out_by_the_next(world):
    world.ask("resume", "b1")
    claim(world.place.spool)
    world.worker().work()
    assert sorted(world.host.machines) == ["b1"]


def test_requests_about_a_node_are_carried_out_in_their_order(world):
    world.host.machines["b1"] = True
    world.host.gate = threading.Event()
    world.ask("suspend", "b1")
    world.ask("resume", "b[1-2]")
    world.ask("resume", "b3")
    thread = threading.Thread(target=world.worker().work)
    thread.start()
    deadline = threading.Event()
    while ("resume", "b3") not in world.host.asked and not deadline.wait(0.05):
        continue
    assert ("resume", "b1", "b2") not in world.host.asked  # it waits for the removal of b1
    world.host.gate.set()
    thread.join(20)
    assert world.host.asked[-1] == ("resume", "b1", "b2")
    assert sorted(world.host.machines) == ["b1", "b2", "b3"]


def test_reconciliation_finds_what_was_lost_on_both_sides(world):
    world.states.update(b1="IDLE+CLOUD+POWERED_DOWN", b3="IDLE+CLOUD+POWERED_DOWN", b4="IDLE+CLOUD+POWERED_DOWN")
    world.host.machines.update(b1=True, stray=True)
    reconcile(world.worker())
    assert world.host.asked == []
    world.now += 60
    reconcile(world.worker())
    assert sorted(world.host.asked) == [("suspend", "stray", "b1")]
    assert [request["nodes"] for request in pending(world.place.spool)] == ["b2"]
    assert remembered(world.place).heartbeat == world.now


def test_a_power_host_that_is_away_is_no_reason_to_do_anything(world):
    world.host.away = True
    world.now += 600
    reconcile(world.worker())
    assert world.told == []
    assert pending(world.place.spool) == []


def test_log_lines_can_be_read_by_people_and_programs(capsys):
    log_line("no room", nodes=["b1", "b2"], why='it "broke"', code="")
    assert capsys.readouterr().out == 'event=no-room nodes=b[1-2] why="it \\"broke\\""\n'
