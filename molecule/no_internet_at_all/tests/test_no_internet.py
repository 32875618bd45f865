# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json

import jmespath

NODES = ("head", "node1")


def test_bare_nodes_run_mpi_and_slurm_without_internet_and_are_left_as_they_were(make_site, quarantine):
    site = make_site("isolated")
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
