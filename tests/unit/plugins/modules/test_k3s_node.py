# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import k3s_node

LABEL = "turnkey.hpc/drained-for"


def node(name, ready=True, cordoned=False, **labels):
    return {
        "metadata": {"name": name, "labels": {key.replace("__", "/"): value for key, value in labels.items()}},
        "spec": {"unschedulable": cordoned},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "nodeInfo": {"kubeletVersion": "v1.34.2+k3s1"},
        },
    }


@pytest.fixture
def cluster(monkeypatch):
    made = {"calls": [], "nodes": [node("head"), node("n1")]}

    def run(argv, _stdin=None):
        if "get" in argv:
            return (0, json.dumps({"items": made["nodes"]}), "") if made["nodes"] else (1, "", "connection refused")
        made["calls"].append(" ".join(argv[2:]))
        return 0, "", ""

    monkeypatch.setattr(k3s_node, "runner", lambda _run: run)
    return made


def run(capsys, **arguments):
    with patch_module_args(arguments), pytest.raises(SystemExit):
        k3s_node.main()
    return json.loads(capsys.readouterr().out)


def test_a_node_that_has_its_labels_is_left_alone(capsys, cluster):
    cluster["nodes"] = [node("n1", zone="a")]
    assert not run(capsys, name="n1", labels={"zone": "a"})["changed"]
    assert run(capsys, name="n1", labels={"zone": "b"})["calls"] == ["label node n1 --overwrite zone=b"]


def test_a_node_is_drained_with_a_reason_and_only_a_first_time_is_a_change(capsys, cluster):
    assert run(capsys, name="n1", state="drained", reason="upgrade", wait_seconds=9)["changed"]
    assert cluster["calls"][0] == f"label node n1 --overwrite {LABEL}=upgrade"
    assert cluster["calls"][1].startswith("drain n1 --ignore-daemonsets")
    assert cluster["calls"][1].endswith("--timeout=9s")
    cluster["nodes"] = [{**node("n1", cordoned=True)}]
    assert not run(capsys, name="n1", state="drained", reason="upgrade")["changed"]
    assert cluster["calls"][2].startswith("drain n1"), "a drain that was cut off is finished"


@pytest.mark.parametrize(
    ("label", "reason", "resumed"),
    [("upgrade", "upgrade", True), ("disk", "upgrade", False), (None, "upgrade", False), (None, "", True)],
)
def test_only_a_node_that_was_drained_for_this_reason_is_resumed(capsys, cluster, label, reason, resumed):
    made = node("n1", cordoned=True)
    made["metadata"]["labels"] = {LABEL: label} if label else {}
    cluster["nodes"] = [made]
    calls = run(capsys, name="n1", state="resumed", reason=reason)["calls"]
    assert ("uncordon n1" in calls) == resumed
    assert any(call.endswith(f"{LABEL}-") for call in calls) == (resumed and bool(label))


def test_a_node_that_is_deleted_twice_is_gone(capsys, cluster):
    assert run(capsys, name="n1", state="absent")["changed"]
    cluster["nodes"] = [node("head")]
    assert not run(capsys, name="n1", state="absent")["changed"]


def test_a_server_that_etcd_needs_is_not_deleted(capsys, cluster):
    servers = [node(name) for name in ("s1", "s2", "s3")]
    for server, voter in zip(servers, ("True", "True", "False")):
        server["status"]["conditions"].append({"type": "EtcdIsVoter", "status": voter})
    cluster["nodes"] = servers
    assert "Without s1 etcd would have 2 members" in run(capsys, name="s1", state="absent")["msg"]
    assert not cluster["calls"]


def test_a_node_that_does_not_come_is_told_with_where_to_look(capsys, cluster):
    cluster["nodes"] = [node("n1", ready=False)]
    assert "not ready with v1.34.2+k3s1 after 0 s" in run(capsys, name="n1", wait_seconds=0)["msg"]
    assert "unknown to the cluster" in run(capsys, name="n2", wait_seconds=0)["msg"]


def test_check_mode_changes_nothing_also_where_there_is_no_cluster_yet(capsys, cluster):
    assert run(capsys, name="n1", state="drained", _ansible_check_mode=True)["changed"]
    cluster["nodes"] = []
    assert run(capsys, name="n1", labels={"a": "b"}, _ansible_check_mode=True)["changed"]
    assert not cluster["calls"]
