# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of clusters as people and plays see it."""

from __future__ import annotations

from types import SimpleNamespace

from ansible_collections.turnkey.hpc.plugins.module_utils._providers.cloud import Row
from ansible_collections.turnkey.hpc.plugins.modules import cloud_clusters_info

PLACE = {"provider": "alicloud", "region": "cn-hangzhou"}


def listed(clusters):
    return cloud_clusters_info.run(PLACE, SimpleNamespace(clusters=lambda: clusters))


def test_clusters_are_listed_by_name_with_their_machines_and_the_way_in():
    head = Row("head", "i-1", "10.20.0.10", "running", bastion=True, public_address="203.0.113.20")
    found = listed({"lab": [head, Row("node1", "i-2", "10.20.0.138", "stopped")], "demo": []})
    assert found["clusters"] == [
        {"name": "demo", "machines": 0, "running": 0, "bastion": ""},
        {"name": "lab", "machines": 2, "running": 1, "bastion": "203.0.113.20"},
    ]
    assert found["summary"] == [
        "demo  0 machines, 0 running",
        "lab   2 machines, 1 running, head at 203.0.113.20",
    ]


def test_an_account_without_clusters_is_said_to_have_none():
    assert listed({}) == {"clusters": [], "summary": ["No clusters in alicloud cn-hangzhou."]}
