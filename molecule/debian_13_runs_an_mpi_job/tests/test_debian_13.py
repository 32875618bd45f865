# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json

import jmespath


def test_a_cluster_of_debian_13_runs_an_mpi_job_and_its_second_run_changes_nothing(make_site):
    site = make_site("debian13")
    assert "VERSION_CODENAME=trixie" in site.root("node1").check_output("cat /etc/os-release")
    site.play("site", "--check").succeeded()
    site.play("site").succeeded()
    again = site.play("site").succeeded()
    assert not any(again.changed.values()), again.output
    site.play("verify").succeeded()
    report = json.loads((site.path / "verify.json").read_text())
    for check in ("mpi_hello", "slurm_mpi"):
        hosts = jmespath.search(f"checks[?name=='{check}'] | [0].detail.ranks[].host", report)
        assert sorted(hosts) == ["head", "node1"], check
    assert jmespath.search("checks[?name=='slurm_accounting'] | [0].detail.state", report) == "COMPLETED"

    head = site.root("head")
    assert "24.11" in head.check_output("sinfo --version")
    greedy = "srun -n 1 --mem=100M python3 -c 'bytearray(300 << 20)'"
    refused = head.run("su - alice -c %s", f"cd /shared && {greedy}")
    assert "oom_kill" in refused.stderr or "Out Of Memory" in refused.stderr, refused.stderr
    cores = "srun -n 1 -c 1 --mem=50M python3 -c 'import os; print(len(os.sched_getaffinity(0)))'"
    assert head.check_output("su - alice -c %s", f"cd /shared && {cores}") == "1"
    for node, daemons in (("head", "munge mariadb slurmdbd slurmctld slurmd"), ("node1", "munge slurmd")):
        restarts = site.root(node).check_output(f"systemctl show -P NRestarts {daemons}").split()
        assert set(restarts) == {"0"}, node
    site.play("reset").succeeded()
