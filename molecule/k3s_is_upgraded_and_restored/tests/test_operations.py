# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's flow against a stand-in for k3s (tests/standins/k3s_standin.py). No Kubernetes runs here."""

import json
import shutil
import subprocess
import sys

import pytest

SERVERS = ("head", "server1", "server2")
OLD, NEW, SKIPPED = "v1.34.2+k3s1", "v1.35.1+k3s1", "v1.36.0+k3s1"
UPGRADED = ("-e", f"k3s_version={NEW}")


@pytest.fixture
def cluster(make_site):
    site = make_site("k3s")
    shutil.rmtree(site.path / ".k3s", ignore_errors=True)
    shutil.rmtree(site.path / ".backups", ignore_errors=True)
    maker = site.path.parents[2] / "tests/standins/k3s_release.py"
    for version in (OLD, NEW, SKIPPED):
        subprocess.run([sys.executable, maker, site.path / ".k3s", version], check=True, capture_output=True)
    site.play("nodes").succeeded()
    site.play("k3s").succeeded()
    return site


def nodes_of(cluster):
    found = json.loads(cluster.root("head").check_output("k3s kubectl get nodes -o json"))
    return {node["metadata"]["name"]: node for node in found["items"]}


def versions(cluster):
    return {name: node["status"]["nodeInfo"]["kubeletVersion"] for name, node in nodes_of(cluster).items()}


def test_a_cluster_is_upgraded_saved_lost_and_restored_and_nodes_leave_it(cluster):
    for version, told in ((SKIPPED, "minor versions can't be skipped"), ("v1.33.6+k3s1", "")):
        refused = cluster.play("upgrade_k3s", "-e", f"k3s_version={version}")
        assert refused.code != 0
        assert told in " ".join(refused.output.split())
    by_accident = cluster.play("k3s", *UPGRADED)
    assert "run the playbook upgrade_k3s" in " ".join(by_accident.output.split())
    assert set(versions(cluster).values()) == {OLD}

    done = cluster.play("upgrade_k3s", *UPGRADED).succeeded()
    assert versions(cluster) == dict.fromkeys((*SERVERS, "node1"), NEW)
    assert done.output.index("Upgrade the servers") < done.output.index("Upgrade the agents")
    node = nodes_of(cluster)["node1"]
    assert not node["spec"].get("unschedulable"), "it gets pods again"
    assert len(list((cluster.path / ".backups/nodes-k3s-k3s").glob("*.snapshot"))) == 1
    again = cluster.play("upgrade_k3s", *UPGRADED).succeeded()
    assert not any(again.changed.values()), again.output

    # Saved with a label, which is changed afterwards, and comes back; also where two servers were lost for good.
    head = cluster.root("head")
    head.check_output("k3s kubectl label node node1 --overwrite kept=yes")
    cluster.play("k3s_snapshot", *UPGRADED).succeeded()
    saved = max((cluster.path / ".backups/nodes-k3s-k3s").glob("*.snapshot"))
    assert saved.with_suffix(".token").stat().st_mode & 0o777 == 0o600
    assert saved.parent.stat().st_mode & 0o777 == 0o700
    head.check_output("k3s kubectl label node node1 --overwrite kept=no")
    for server in ("server1", "server2"):
        cluster.root(server).check_output("systemctl stop k3s; rm -rf /var/lib/rancher/k3s/server")
    unconfirmed = cluster.play("k3s_restore", *UPGRADED)
    assert unconfirmed.code != 0
    assert "k3s_restore_confirm=nodes-k3s" in " ".join(unconfirmed.output.split())
    cluster.play("k3s_restore", *UPGRADED, "-e", "k3s_restore_confirm=nodes-k3s").succeeded()
    found = nodes_of(cluster)
    assert found["node1"]["metadata"]["labels"]["kept"] == "yes"
    votes = [
        entry for name in SERVERS for entry in found[name]["status"]["conditions"] if entry["type"] == "EtcdIsVoter"
    ]
    assert [entry["status"] for entry in votes] == ["True"] * 3
    again = cluster.play("k3s", *UPGRADED).succeeded()
    assert not any(again.changed.values()), again.output

    # An agent leaves and comes back under its name, with another password; then a server leaves.
    cluster.play("reset_k3s", *UPGRADED, "--limit", "node1").succeeded()
    assert set(nodes_of(cluster)) == set(SERVERS)
    cluster.play("k3s", *UPGRADED, "--limit", "node1").succeeded()
    assert set(nodes_of(cluster)) == {*SERVERS, "node1"}
    cluster.play("reset_k3s", *UPGRADED, "--limit", "server2").succeeded()
    assert set(nodes_of(cluster)) == {"head", "server1", "node1"}
    cluster.play("k3s", *UPGRADED).succeeded()
    assert set(nodes_of(cluster)) == {*SERVERS, "node1"}
