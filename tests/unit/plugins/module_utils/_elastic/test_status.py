# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.engine import SlurmNode
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.memory import Memory, Record
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.settings import Settings
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.status import overview, table

SETTINGS = Settings.parse({"kinds": [{"name": "burst", "nodes": "b[1-4]", "provider": "docker", "host": "p"}]})


def found(now=1000.0, heartbeat=990.0):
    memory = Memory(heartbeat=heartbeat, closed={"main": 1.0}, errors=["b3: JoinFailed: no munge"], hours=1.5)
    memory.nodes["b1"] = Record(intent="coming", since=960)
    memory.nodes["b3"] = Record(intent="coming", since=900, code="JoinFailed", text="no munge")
    states = {"b1": "ALLOCATED+CLOUD+POWERING_UP", "b2": "IDLE+CLOUD+POWERED_DOWN", "b3": "DOWN+CLOUD+POWERING_UP"}
    nodes = {name: SlurmNode(name, frozenset(state.split("+"))) for name, state in states.items()}
    return overview(SETTINGS, memory, nodes, now)


def test_users_see_what_a_node_does_for_how_long_and_why_it_failed():
    text = table(found())
    assert "powering up, 40 s so far" in text
    assert "JoinFailed: no munge" in text
    assert "1 failed, 1 off, 1 powering up, 1 unknown to Slurm" in text
    assert "1.50 node hours today" in text
    assert "node-power reset main" in text


def test_a_reconciliation_that_stopped_is_shouted():
    assert "NOT RECONCILED for 400 s" in table(found(heartbeat=600.0))
    assert "NOT RECONCILED yet" in table(found(heartbeat=0))
    assert "NOT RECONCILED" not in table(found())


def test_the_table_has_a_line_for_each_node_that_is_not_off():
    assert table(found()) == (
        "b1               burst        powering up, 40 s so far\n"
        "b3               burst        failed, 100 s so far  JoinFailed: no munge\n"
        "\n"
        "1 failed, 1 off, 1 powering up, 1 unknown to Slurm\n"
        "1.50 node hours today\n"
        "partition main is closed; when its nodes can start again: node-power reset main\n"
        "last errors:\n"
        "  b3: JoinFailed: no munge\n"
    )


def test_a_failed_node_that_nothing_is_noted_of_shows_what_slurm_says_of_it():
    nodes = {
        "b1": SlurmNode("b1", frozenset({"IDLE", "CLOUD"}), reason="kept for a test"),
        "b2": SlurmNode("b2", frozenset({"DOWN", "CLOUD"}), reason="Not responding"),
    }
    idle, failed = overview(SETTINGS, Memory(), nodes, 1000.0)["nodes"]
    assert (idle["text"], idle["seconds"]) == ("", None)
    assert (failed["state"], failed["text"], failed["seconds"]) == ("failed", "Not responding", None)


def test_a_kind_without_room_is_named_until_it_is_tried_again():
    cool_down = SETTINGS.limits.capacity_cool_down_seconds
    memory = Memory(heartbeat=999.0, no_room={"burst": 1000.0 - cool_down + 1, "gpu": 1000.0 - cool_down})
    what = overview(SETTINGS, memory, {}, 1000.0)
    assert what["kinds_without_room"] == ["burst"]
    assert table(what) == ("4 unknown to Slurm\n0.00 node hours today\nkind burst has no room at its provider\n")
