# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.turnkey.hpc.plugins.action import preflight_report
from ansible_collections.turnkey.hpc.plugins.module_utils._preflight import Problem

SURVEY = {"interfaces": {"lo": ["127.0.0.1/8"], "eth0": ["10.0.0.1/24"]}, "hosts_file": [{"address": "x"}]}


def test_results_of_all_hosts_are_collected_and_a_missing_one_is_a_problem():
    memory = {"id": "memory", "problem": "too little", "remedy": "more"}
    hostvars = {
        "head": {"found": {"problems": [], "address": "10.0.0.1", "survey": SURVEY, "probes": [{"peer": "node1"}]}},
        "node1": {"found": {"problems": [memory], "address": "10.0.0.2"}},
        "node2": {"found": {"failed": True, "msg": "a template failed"}},
        "node3": {},
    }
    problems, seen = preflight_report.collect(list(hostvars), "found", hostvars)
    assert problems["head"] == []
    assert problems["node1"] == [Problem("memory", "too little", "more")]
    assert [problem.id for problem in problems["node2"] + problems["node3"]] == ["survey", "survey"]
    assert {host: each.address for host, each in seen.items()} == {
        "head": "10.0.0.1",
        "node1": "10.0.0.2",
        "node2": "",
        "node3": "",
    }
    assert [host for host, each in seen.items() if each.lost] == ["node2", "node3"]
    assert seen["head"].own_addresses == {"10.0.0.1"}
    assert (seen["head"].probes, seen["head"].hosts_file) == ([{"peer": "node1"}], [{"address": "x"}])


def test_a_host_that_does_not_answer_or_has_another_address_is_not_blamed_for_closed_ways():
    found = {"problem": "x", "remedy": "y"}
    hostvars = {
        name: {"found": {"problems": [{"id": check, **found}], "address": "10.0.0.1"}}
        for name, check in (("a", "reachable"), ("b", "address"), ("c", "memory"))
    }
    _problems, seen = preflight_report.collect(list(hostvars), "found", hostvars)
    assert [host for host, each in seen.items() if each.lost] == ["a", "b"]
