# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's flow against a stand-in for k3s (tests/standins/k3s_standin). No Kubernetes runs here.

The registry is the real one, and so are pulls, processes, addresses and files; what schedules them is not.
"""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.acceptance import CHECKS, NAME, manifests

ROOT = Path(__file__).resolve().parents[3]
MAKER = ROOT / "tests/standins/k3s_release.py"
SERVERS = ("head", "server1", "server2")
OLDER, OLD, NEW, SKIPPED = "v1.33.6+k3s1", "v1.34.2+k3s1", "v1.35.1+k3s1", "v1.36.0+k3s1"
IMAGE = "docker.io/library/busybox:1.36"
SKOPEO = "--authfile /root/.auth --cert-dir /root/.ca"


@pytest.fixture
def cluster(make_site):
    site = make_site("k3s")
    for name in (".k3s", ".backups", ".given"):
        shutil.rmtree(site.path / name, ignore_errors=True)
    (site.path / ".given").mkdir()
    for version in (OLDER, OLD, NEW, SKIPPED):
        subprocess.run([sys.executable, MAKER, site.path / ".k3s", version], check=True, capture_output=True)
    site.play("nodes").succeeded()
    site.root("node1").check_output("apt-get update -qq && apt-get install -qq --no-install-recommends iptables")
    site.play("container_registry").succeeded()
    return site


def with_registry(cluster):
    """Return what every play of k3s is told: the registry of this site."""
    settings = yaml.safe_load((cluster.path / "group_vars/all.yml").read_text())
    return "-e", f"k3s_registry={settings['cluster_network'].rpartition('.')[0]}.10:5000"


def snapshots(cluster):
    return sorted((cluster.path / ".backups").glob("*-k3s/*.snapshot"))


def push(cluster, registry):
    """Push an image with the shell, as an administrator does; return its digest."""
    head = cluster.root("head")
    image = cluster.path / ".given/busybox.tar"
    subprocess.run([sys.executable, MAKER, "--busybox", image], check=True)
    ssh = ["ssh", "-F", str(cluster.ssh_config), "root@head"]
    with image.open("rb") as content:
        subprocess.run([*ssh, "cat >/root/busybox.tar"], stdin=content, check=True)
    head.check_output("install -D /etc/docker/registry/turnkey/ca.crt /root/.ca/ca.crt")
    login = [*ssh, f"skopeo login {SKOPEO} -u turnkey --password-stdin {registry}"]
    with (cluster.path / ".secrets/container_registry/password").open("rb") as password:
        subprocess.run(login, stdin=password, check=True, capture_output=True)
    head.check_output(
        f"skopeo copy {SKOPEO.replace('--cert', '--dest-cert')} docker-archive:/root/busybox.tar docker://{registry}/library/busybox:1.36"
    )
    return json.loads(head.check_output(f"skopeo inspect {SKOPEO} docker://{registry}/library/busybox:1.36"))["Digest"]


def nodes_of(cluster):
    found = json.loads(cluster.root("head").check_output("k3s kubectl get nodes -o json"))
    return {node["metadata"]["name"]: node for node in found["items"]}


def versions(cluster):
    return {name: node["status"]["nodeInfo"]["kubeletVersion"] for name, node in nodes_of(cluster).items()}


def proof(cluster, path, *arguments):
    """Run the product's own proof; return how it ended, and its checks by name."""
    done = cluster.play("acceptance_k3s", "-e", f"acceptance_k3s_report={path}", *arguments)
    report = json.loads(path.read_text())
    assert report["ok"] == (done.code == 0)
    assert tuple(check["name"] for check in report["checks"]) == CHECKS
    return done, {check["name"]: check for check in report["checks"]}


def check_acceptance(cluster, registry, tmp_path):
    """All works; then an image is gone, and a node is down, and each is told as what it is."""
    digest = push(cluster, registry)
    cluster.root("head").check_output("systemctl restart docker-registry")
    done, checks = proof(cluster, tmp_path / "report")
    assert done.code == 0, checks
    assert checks["pods"]["detail"]["digest"] == digest, "what runs is what was pushed"
    assert set(checks["pods"]["detail"]["pods"]) == {*SERVERS, "node1"}

    head = cluster.root("head")
    head.check_output(f"skopeo delete {SKOPEO} docker://{registry}/library/busybox:1.36")
    agent = cluster.root("node1")
    agent.check_output("systemctl stop k3s-agent")
    unready = "k3s kubectl get nodes -o json | grep -q Unknown"
    head.check_output(f"timeout 30 sh -c 'until {unready}; do sleep 0.5; done'")  # poll interval
    done, checks = proof(cluster, tmp_path / "report", "-e", "acceptance_k3s_seconds=6")
    agent.check_output("systemctl start k3s-agent")
    assert {name for name, check in checks.items() if check["ok"]} == {"objects"}
    assert "not ready, or no voter: node1" in checks["nodes"]["detail"]["failure"]
    told = checks["pods"]["detail"]["failure"]
    assert "no ready pod on head, node1, server1, server2: Failed to pull image" in told
    assert "404" in told
    assert "nodes, pods, pod_network, names, volume, ingress: see the report" in " ".join(done.output.split())
    assert "NotFound" in head.run(f"k3s kubectl get namespace {NAME} -o json").stderr, "it cleans up"
    assert cluster.root("server1").run("ls /run/k3s/containerd").stdout.split() == ["standin"]
    push(cluster, registry)


def check_hub(cluster):
    """The hub's chart lies where k3s takes it, and its secrets apart and closed; k3s takes both."""
    chart = {"jupyterhub/Chart.yaml": b"apiVersion: v2\nname: jupyterhub\nversion: 4.2.0\n"}
    with tarfile.open(cluster.path / ".given/chart.tgz", "w:gz") as archive:
        for name, content in chart.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    cluster.play("jupyterhub").succeeded()
    again = cluster.play("jupyterhub").succeeded()
    assert not any(again.changed.values()), again.output
    head = cluster.root("head")
    place = "/var/lib/rancher/k3s/server/manifests"
    files = sorted(head.check_output(f"ls {place}/turnkey-*").split())
    assert len(files) == 2
    assert {head.file(path).mode for path in files} == {0o600}
    ask = "k3s kubectl -n kube-system get helmchart jupyterhub -o json"
    head.check_output(f"timeout 20 sh -c 'until {ask}; do sleep 0.5; done'")  # poll interval
    found = json.loads(head.check_output(ask))
    assert [(one["type"], one["status"]) for one in found["status"]["conditions"]] == [("Failed", "False")], found
    assert found["status"]["standin"]["chart"] == "jupyterhub"
    secret = (cluster.path / ".secrets/jupyterhub/cookie_secret").read_text().strip()
    assert secret not in json.dumps(found)
    assert "jupyterhub-tls" in head.check_output("k3s kubectl -n jupyterhub get secrets -o json")


def check_upgrade(cluster, registry_is):
    for version, told in ((SKIPPED, "minor versions can't be skipped"), (OLDER, "k3s can't go back")):
        refused = cluster.play("upgrade_k3s", "-e", f"k3s_version={version}", *registry_is)
        assert refused.code != 0
        assert told in " ".join(refused.output.split())
        assert not any(refused.changed.values())
    by_accident = cluster.play("k3s", "-e", f"k3s_version={NEW}", *registry_is)
    assert "run the playbook upgrade_k3s" in " ".join(by_accident.output.split())
    assert set(versions(cluster).values()) == {OLD}

    # Containers run on while what started them is replaced.
    items = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests(IMAGE)})
    head = cluster.root("head")
    ssh = ["ssh", "-F", str(cluster.ssh_config), "root@head", "k3s kubectl apply -f -"]
    subprocess.run(ssh, input=items, text=True, check=True, capture_output=True)
    # poll interval: 0.5 s
    ready = "timeout 30 sh -c 'until curl -sf -H Host:turnkey-acceptance http://127.0.0.1/; do sleep 0.5; done'"
    head.check_output(ready)
    find = 'pgrep -f "[c]ontainerd-shim.* httpd"'
    shims = f"timeout 30 sh -c 'until {find}; do sleep 0.5; done'"  # poll interval
    before = {node: cluster.root(node).check_output(shims) for node in (*SERVERS, "node1")}

    done = cluster.play("upgrade_k3s", "-e", f"k3s_version={NEW}", *registry_is).succeeded()
    assert versions(cluster) == dict.fromkeys((*SERVERS, "node1"), NEW)
    assert done.output.index("Upgrade the servers") < done.output.index("Upgrade the agents")
    assert {node: cluster.root(node).check_output(shims) for node in before} == before
    head.check_output(ready)
    node = nodes_of(cluster)["node1"]
    assert not node["spec"].get("unschedulable"), "it gets pods again"
    assert len(snapshots(cluster)) == 1


def test_a_cluster_is_proved_upgraded_saved_lost_and_restored_and_nodes_leave_it(cluster, tmp_path):
    registry_is = with_registry(cluster)
    cluster.play("k3s", *registry_is).succeeded()
    check_acceptance(cluster, registry_is[1].partition("=")[2], tmp_path)
    check_hub(cluster)
    check_upgrade(cluster, registry_is)
    upgraded = ("-e", f"k3s_version={NEW}", *registry_is)
    again = cluster.play("upgrade_k3s", *upgraded).succeeded()
    assert not any(again.changed.values()), again.output

    # Saved with a label, which is changed afterwards, and comes back; also where two servers were lost for good.
    head = cluster.root("head")
    head.check_output("k3s kubectl label node node1 --overwrite kept=yes")
    cluster.play("k3s_snapshot", *upgraded).succeeded()
    saved = snapshots(cluster)[-1]
    assert saved.with_suffix(".token").stat().st_mode & 0o777 == 0o600
    assert saved.parent.stat().st_mode & 0o777 == 0o700
    head.check_output("k3s kubectl label node node1 --overwrite kept=no")
    for server in ("server1", "server2"):
        cluster.root(server).check_output("systemctl stop k3s; rm -rf /var/lib/rancher/k3s/server")
    unconfirmed = cluster.play("k3s_restore", *upgraded)
    assert unconfirmed.code != 0
    confirm = (
        f"k3s_restore_confirm={yaml.safe_load((cluster.path / 'machines.docker.yml').read_text())['cluster_name']}"
    )
    assert confirm in " ".join(unconfirmed.output.split())
    cluster.play("k3s_restore", *upgraded, "-e", confirm).succeeded()
    found = nodes_of(cluster)
    assert found["node1"]["metadata"]["labels"]["kept"] == "yes"
    votes = [
        entry for name in SERVERS for entry in found[name]["status"]["conditions"] if entry["type"] == "EtcdIsVoter"
    ]
    assert [entry["status"] for entry in votes] == ["True"] * 3
    again = cluster.play("k3s", *upgraded).succeeded()
    assert not any(again.changed.values()), again.output

    # An agent leaves, with what ran on it, and comes back under its name with another password; then a server leaves.
    # Volumes stay until that is confirmed, and rules of others in the same tables stay anyhow.
    agent = cluster.root("node1")
    volume = "/var/lib/rancher/k3s/storage/pvc-1/file"
    agent.check_output(f"mkdir -p {volume.rpartition('/')[0]}; echo data >{volume}")
    agent.check_output("iptables -A INPUT -s 192.0.2.1 -j DROP; iptables -N MINE")
    assert "KUBE-FORWARD" in agent.check_output("iptables-save")
    cluster.play("reset_k3s", *upgraded, "--limit", "node1").succeeded()
    assert set(nodes_of(cluster)) == set(SERVERS)
    rules = agent.check_output("iptables-save")
    assert "-A INPUT -s 192.0.2.1/32 -j DROP" in rules
    assert ":MINE" in rules
    assert "KUBE" not in rules
    assert agent.run("pgrep -f '[c]ontainerd-shim|[h]ttpd'").rc == 1
    assert agent.check_output(f"cat {volume}") == "data"
    cluster.play("k3s", *upgraded, "--limit", "node1").succeeded()
    assert set(nodes_of(cluster)) == {*SERVERS, "node1"}
    assert agent.check_output(f"cat {volume}") == "data"
    cluster.play("reset_k3s", *upgraded, "--limit", "server2").succeeded()
    assert set(nodes_of(cluster)) == {"head", "server1", "node1"}
    cluster.play("k3s", *upgraded).succeeded()
    assert set(nodes_of(cluster)) == {*SERVERS, "node1"}
    wipe = ("--limit", "node1", "-e", "reset_wipe_data=true")
    cluster.play("reset_k3s", *upgraded, *wipe).succeeded()
    assert agent.check_output(f"cat {volume}") == "data"
    cluster.play("k3s", *upgraded, "--limit", "node1").succeeded()
    name = confirm.partition("=")[2]
    cluster.play("reset_k3s", *upgraded, *wipe, "-e", f"reset_confirm={name}").succeeded()
    assert not agent.file("/var/lib/rancher").exists
    last = cluster.play("reset_k3s", *upgraded, "--limit", "node1").succeeded()
    assert not any(last.changed.values()), last.output
