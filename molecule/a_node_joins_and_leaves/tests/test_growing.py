# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json
import subprocess

import jmespath
import pytest

TWO, THREE = ("head", "node1"), ("head", "node1", "node2")
BIGGER = ("-e", "site_nodes=2")


@pytest.fixture
def cluster(make_site):
    return make_site("growing")


def assert_all_reach_all(cluster, nodes):
    for source in nodes:
        script = "; ".join(f"ssh -o BatchMode=yes {target} hostname" for target in nodes)
        assert cluster.root(source).check_output(f"su - alice -c '{script}'").split() == list(nodes), source


def assert_mpi_runs_on(cluster, nodes):
    cluster.play("verify").succeeded()
    report = json.loads((cluster.path / "verify.json").read_text())
    assert sorted(jmespath.search("checks[?name=='mpi_hello'] | [0].detail.ranks[].host", report)) == list(nodes)


def nodes_of_slurm(cluster):
    """Return the nodes that Slurm has, and their states."""
    lines = cluster.root("head").check_output("sinfo -h -N -o '%N %t'").splitlines()
    return dict(line.split() for line in lines)


def daemons(cluster):
    """Return the processes of Slurm that a node which joins or leaves must not disturb."""
    show = "systemctl show -P MainPID"
    return cluster.root("head").check_output(f"{show} slurmctld slurmd"), cluster.root("node1").check_output(
        f"{show} slurmd"
    )


def alices_key(cluster, node, place):
    """Steal the key and certificate that alice has on ``node``."""
    for suffix in ("", "-cert.pub"):
        text = cluster.root(node).check_output(f"cat /etc/ssh/turnkey/users/alice/id_ed25519{suffix}")
        (place / f"stolen{suffix}").write_text(f"{text}\n")
    (place / "stolen").chmod(0o600)
    return place / "stolen"


def join(cluster):
    cluster.play("provision", *BIGGER).succeeded()
    return cluster.play("site", "--limit", "node2").succeeded()


def test_a_node_joins_with_limit_and_leaves_with_nothing_that_opens_a_door(cluster, tmp_path):
    cluster.play("site").succeeded()
    assert set(nodes_of_slurm(cluster)) == set(TWO)
    running = daemons(cluster)
    run = join(cluster)
    assert set(run.changed) <= {"node2", "localhost"}, "no other node has a task of its own"
    assert nodes_of_slurm(cluster) == dict.fromkeys(THREE, "idle")
    assert daemons(cluster) == running, "a node that joins restarts no other daemon"
    assert_all_reach_all(cluster, THREE)
    assert_mpi_runs_on(cluster, THREE)

    again = cluster.play("site", "--limit", "node2").succeeded()
    assert not any(again.changed.values()), again.output

    stolen = alices_key(cluster, "node2", tmp_path)
    assert cluster.login("alice", "node1", stolen).stdout.split() == ["alice", "node1"]
    refusal = cluster.play("remove_node", "-e", "node=head")
    assert refusal.code != 0
    assert "not the head ('head')" in " ".join(refusal.output.split())
    cluster.root("node2").check_output("su - alice -c 'tail -f /dev/null </dev/null >/dev/null 2>&1 &'")
    busy = cluster.play("remove_node", "-e", "node=node2")
    assert busy.code != 0
    assert "tail -f" in busy.output
    assert cluster.login("alice", "node1", stolen).returncode == 0, "a refused removal revokes nothing"
    assert nodes_of_slurm(cluster)["node2"].startswith("drain"), "but no job begins there"

    cluster.play("remove_node", "-e", "node=node2", "-e", "drain_node_force=true").succeeded()
    assert "Permission denied" in cluster.login("alice", "node1", stolen).stderr
    assert nodes_of_slurm(cluster) == dict.fromkeys(TWO, "idle")
    assert daemons(cluster) == running, "a node that leaves restarts no other daemon"
    for node in TWO:
        assert "node2" not in cluster.root(node).check_output("cat /etc/hosts /etc/openmpi/cluster-hosts")
    assert "node1" not in cluster.root("node2").check_output("cat /etc/hosts")

    again = cluster.play("remove_node", "-e", "node=node2").succeeded()
    assert not any(count for node, count in again.changed.items() if node in TWO), again.output

    cluster.play("provision").succeeded()  # count is 1 again
    after = cluster.play("site").succeeded()
    assert not any(after.changed.values()), after.output
    assert "Permission denied" in cluster.login("alice", "node1", stolen).stderr, "revocations last"
    assert_all_reach_all(cluster, TWO)
    assert_mpi_runs_on(cluster, TWO)


def test_a_node_of_the_same_name_joins_again_and_is_removed_when_it_is_dead(cluster, tmp_path):
    join(cluster)
    assert_all_reach_all(cluster, THREE)
    stolen = alices_key(cluster, "node2", tmp_path)
    subprocess.run(["docker", "kill", "nodes-3-node2"], check=True, capture_output=True)
    gone = cluster.play("remove_node", "-e", "node=node2")
    assert gone.code == 0, gone.output
    assert "Permission denied" in cluster.login("alice", "node1", stolen).stderr
    assert_all_reach_all(cluster, TWO)
    assert set(nodes_of_slurm(cluster)) == set(TWO)
