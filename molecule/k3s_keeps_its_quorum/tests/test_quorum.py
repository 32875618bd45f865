# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's flow against a stand-in for k3s (tests/standins/k3s_standin). No Kubernetes runs here."""

import json
import shutil
import subprocess
import sys

import pytest

SERVERS, NODES = ("head", "server1", "server2"), ("head", "server1", "server2", "node1")
SECRETS = ".secrets/k3s"


@pytest.fixture
def cluster(make_site):
    site = make_site("k3s")
    shutil.rmtree(site.path / ".k3s", ignore_errors=True)
    maker = site.path.parents[2] / "tests/standins/k3s_release.py"
    subprocess.run([sys.executable, maker, site.path / ".k3s", "v1.34.2+k3s1"], check=True, capture_output=True)
    site.play("nodes").succeeded()
    return site


def nodes_of(cluster, server="head"):
    """Return (ready, votes) of each node as a server tells it."""
    found = json.loads(cluster.root(server).check_output("k3s kubectl get nodes -o json"))
    told = {}
    for node in found["items"]:
        states = {entry["type"]: entry["status"] == "True" for entry in node["status"]["conditions"]}
        told[node["metadata"]["name"]] = (states["Ready"], states.get("EtcdIsVoter"))
    return told


def starts(cluster):
    """Return when k3s was started on each node."""
    show = "systemctl show -P ExecMainStartTimestamp k3s k3s-agent"
    return {node: cluster.root(node).check_output(show) for node in NODES}


def assert_secrets_are_kept(cluster):
    secrets = {name: (cluster.path / SECRETS / name).read_text().strip() for name in ("token", "agent_token")}
    assert secrets["token"] != secrets["agent_token"]
    assert all(len(secret) == 48 for secret in secrets.values())
    for node in NODES:
        host = cluster.root(node)
        for name, secret in secrets.items():
            seen = host.run("(ps -eww -o args; journalctl --no-pager) | grep -vF grep | grep -cF %s", secret).stdout
            assert seen.strip() == "0", f"{name} is in the processes or the journal of {node}"
            where = host.run("grep -rlF --exclude-dir=proc %s /etc /var/lib/rancher /var/lib/turnkey /root", secret)
            for path in where.stdout.split():
                assert host.file(path).mode == 0o600, f"{name} is in {path} of {node}"
        assert host.file("/etc/rancher/k3s/config.yaml").mode == 0o600
    agent = cluster.root("node1")
    assert secrets["token"] not in agent.check_output("cat /etc/rancher/k3s/config.yaml")
    pin = (cluster.path / SECRETS / "ca_sha256").read_text().strip()
    for node, place in (("node1", "config.yaml"), ("server1", "config.yaml.d/10-join.yaml")):
        assert f"K10{pin}::" in cluster.root(node).check_output(f"cat /etc/rancher/k3s/{place}"), (
            "who joins pins the CA"
        )
    assert cluster.root("head").file("/etc/rancher/k3s/k3s.yaml").mode == 0o600


def test_three_servers_join_one_by_one_survive_what_breaks_and_leave_no_trace(cluster):
    # The user's own access to another cluster, and rules of a firewall, are nothing to a reset.
    head = cluster.root("head")
    head.check_output("install -d -m 0700 /root/.kube; echo mine >/root/.kube/config")
    head.check_output("nft add table inet mine; nft add chain inet mine KUBE-LIKE")
    before = cluster.picture("head")
    # k3s starts on a host without a default route only because its unit makes one.
    isolated = cluster.root("server2")
    isolated.check_output("ip route delete default")
    cluster.play("k3s").succeeded()
    assert "turnkey-route" in isolated.check_output("ip route show default")
    assert nodes_of(cluster) == {**dict.fromkeys(SERVERS, (True, True)), "node1": (True, None)}
    assert "mirrored-pause:v1.34.2" in cluster.root("node1").check_output("k3s ctr images ls")
    assert_secrets_are_kept(cluster)

    started = starts(cluster)
    again = cluster.play("k3s").succeeded()
    assert not any(again.changed.values()), again.output

    # A label restarts nothing. A setting restarts the server that it is for.
    cluster.play("k3s", "--limit", "server2,node1", "-e", '{"k3s_node_labels": {"site/rack": "7"}}').succeeded()
    assert starts(cluster) == started
    labels = cluster.root("head").check_output("k3s kubectl get nodes -o json")
    assert labels.count('"site/rack": "7"') == 2

    # One server is lost, and can't be started: no other may be restarted.
    broken = cluster.root("server2")
    broken.check_output("systemctl mask --runtime --now k3s 2>&1")
    wanted = ("--limit", "head", "-e", '{"k3s_tls_sans": ["k3s.example.org"]}')
    refused = cluster.play("k3s", *wanted, "-e", "k3s_wait_seconds=5")
    assert refused.code != 0
    assert "Without head etcd would lose its quorum" in " ".join(refused.output.split())
    assert starts(cluster)["head"] == started["head"]

    # All servers are down: nobody waits without an end; then one run brings all of them back, with the setting.
    for server in ("head", "server1"):
        cluster.root(server).check_output("systemctl stop k3s")
    cluster.root("node1").check_output("systemctl restart --no-block k3s-agent")
    waited = cluster.play("k3s", "--limit", "node1", "-e", "k3s_wait_seconds=3")
    assert waited.code != 0
    assert "k3s is not well on node1 after 3 s" in " ".join(waited.output.split())
    broken.check_output("systemctl unmask --runtime k3s 2>&1")
    cluster.play("k3s", *wanted[2:]).succeeded()
    assert nodes_of(cluster, "server2") == {**dict.fromkeys(SERVERS, (True, True)), "node1": (True, None)}

    # An agent's picture is in no_internet_at_all, a second reset in k3s_is_upgraded_and_restored.
    cluster.play("reset_k3s").succeeded()
    for node in NODES:
        host = cluster.root(node)
        assert host.run("pgrep -f '[c]ontainerd-shim|[s]leep infinity'").rc == 1, f"something runs on {node}"
        assert not host.interface("turnkey-route").exists
    after = cluster.picture("head")
    assert not after - before, "head has more:\n" + "\n".join(sorted(after - before))
    assert not before - after, "head lost:\n" + "\n".join(sorted(before - after))
