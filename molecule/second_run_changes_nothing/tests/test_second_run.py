# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json
import subprocess

import jmespath

MOST_MODULE_RUNS = 14
# One each of the roles mirror, gpu and docker_engine, which no node of this site asks for.
MOST_IDLE_TASKS = 4 + 3


def test_a_second_run_changes_nothing_and_costs_a_node_few_tasks(site, tmp_path):
    costs = tmp_path / "costs.json"
    run = site.play("site", count_into=costs).succeeded()
    assert not any(run.changed.values()), run.output
    node = json.loads(costs.read_text())["node2"]
    assert node["runs"] <= MOST_MODULE_RUNS, node
    assert node["idle"] <= MOST_IDLE_TASKS, node


def test_the_cluster_proves_itself_and_leaves_a_report(site):
    site.play("verify").succeeded()
    report = json.loads((site.path / "verify.json").read_text())
    assert report["ok"]
    checks = {"login", "mpi_hello", "mpi_service", "shared_directory", "ssh_mesh"}
    checks |= {"slurm_accounting", "slurm_batch", "slurm_mpi"}
    assert set(jmespath.search("checks[].name", report)) == checks
    for check in ("mpi_hello", "mpi_service", "slurm_mpi"):
        hosts = jmespath.search(f"checks[?name=='{check}'] | [0].detail.ranks[].host", report)
        assert sorted(hosts) == ["node1", "node2", "node3"], check


def test_time_on_a_node_comes_from_the_head(site):
    sources = site.root("node3").check_output("chronyc -c -n sources")
    assert "10.213.78.10" in sources


def test_the_head_serves_the_shared_directory_by_nfs_and_lets_nobody_be_root(site, tmp_path):
    url = "nfs://10.213.78.10/shared"
    (tmp_path / "note").write_text("by NFS\n")
    for user, owner in ((2001, "alice"), (0, "nobody")):
        name = f"note-of-{owner}"
        subprocess.run(["nfs-cp", str(tmp_path / "note"), f"{url}/{name}?version=4&uid={user}&gid={user}"], check=True)
        node = site.root("node1")
        assert node.check_output(f"cat /shared/{name}") == "by NFS"
        assert node.file(f"/shared/{name}").user == owner
        node.check_output(f"rm /shared/{name}")
