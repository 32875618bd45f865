# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole of site.yml where nothing leads out. For k3s a stand-in stands; no Kubernetes runs here."""

import json
import subprocess
import sys

import jmespath
import pytest

NODES = ("head", "node1")


@pytest.fixture
def site(make_site, write_image):
    site = make_site("isolated")
    write_image(site.path / ".given/mini.tar")
    maker = site.path.parents[2] / "tests/standins/k3s_release.py"
    subprocess.run([sys.executable, maker, site.path / ".k3s", "v1.34.2+k3s1"], check=True, capture_output=True)
    return site


def test_bare_nodes_become_the_whole_cluster_without_internet_and_are_left_as_they_were(site, quarantine):
    site.play("bundle").succeeded()
    unchanged = site.play("bundle").succeeded()
    assert not any(unchanged.changed.values()), unchanged.output
    nodes = quarantine("isolated", NODES)
    nodes.close("10.213.89.0/24")
    before = {node: site.picture(node) for node in NODES}

    site.play("site").succeeded()
    site.play("verify").succeeded()
    report = json.loads((site.path / "verify.json").read_text())
    for check in ("mpi_hello", "slurm_mpi"):
        hosts = jmespath.search(f"checks[?name=='{check}'] | [0].detail.ranks[].host", report)
        assert sorted(hosts) == list(NODES), check
    assert {check["name"] for check in report["checks"] if check["ok"]} >= {"jupyterhub"}
    listed = json.loads(site.root("head").check_output("k3s kubectl get nodes -o json"))
    assert sorted(node["metadata"]["name"] for node in listed["items"]) == list(NODES)
    for node in NODES:
        pulled = site.root(node).run("k3s crictl pull registry.example.org/turnkey/mini:1")
        assert pulled.succeeded, f"{node}: {pulled.stderr}"
    second = site.play("site").succeeded()
    assert not any(second.changed.values()), second.output
    assert nodes.attempts() == set(), "nothing tried to leave"

    site.play("reset").succeeded()
    last = site.play("reset").succeeded()
    assert not any(last.changed.values()), last.output
    for node in NODES:
        data = ("/home/alice", "/var/backups/slurm", "/srv/turnkey-registry")
        after = {line for line in site.picture(node) if not any(part in line for part in data)}
        assert after == before[node], f"{node}: {sorted(after ^ before[node])}"
    assert nodes.attempts() == set(), "nothing tried to leave while it was taken off"
