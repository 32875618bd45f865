# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.providers import Several, machines_of
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput


def test_a_provider_that_makes_no_elastic_nodes_is_an_error():
    with pytest.raises(InvalidInput, match="makes no elastic nodes"):
        machines_of({"kinds": [{"name": "burst", "provider": "vmware"}]})


class Machines:
    """The machines of one provider, which logs what it is asked for."""

    def __init__(self, log, *there):
        self.log, self.there = log, there

    def status(self):
        return dict.fromkeys(self.there, "running")

    def _answer(self, names):
        self.log.append(list(names))
        yield from ({"node": name} for name in names)

    resume = suspend = remove = _answer


def test_each_provider_of_a_host_gets_its_own_nodes_and_those_that_it_alone_has():
    log = []
    several = Several([(Machines(log, "a1", "old"), {"a1": 1, "a2": 1}), (Machines(log, "b1"), {"b1": 1})])
    assert several.status() == {"a1": "running", "old": "running", "b1": "running"}
    for ask in (several.resume, several.suspend, several.remove):
        log.clear()
        assert [answer["node"] for answer in ask(["b1", "a2", "old"])] == ["a2", "old", "b1"]
        assert log == [["a2", "old"], ["b1"]]


def test_a_host_that_makes_no_machines_any_more_has_none():
    machines, names = machines_of({"kinds": []})
    assert (machines.status(), list(machines.suspend(["a1"])), names) == ({}, [], {})
