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
    assert sorted(jmespath.search("checks[?name=='mpi_hello'] | [0].detail.ranks[].host", report)) == ["head", "node1"]
    site.play("reset").succeeded()
