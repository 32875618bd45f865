# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import slurm_config

HARDWARE = {"cpus": 4, "memory_mb": 1000}


def run(capsys, **arguments):
    given = {
        "cluster_name": "lab",
        "controllers": [{"name": "head"}],
        "nodes": "n[1-2]",
        "partitions": [{"name": "main"}],
        "release": "22.05",
        "_ansible_check_mode": True,
        **arguments,
    }
    with patch_module_args(given), pytest.raises(SystemExit):
        slurm_config.main()
    return json.loads(capsys.readouterr().out)


def test_nodes_that_must_be_measured_first_are_named_and_nothing_is_done(capsys) -> None:
    result = run(capsys)
    assert result["missing"] == "n[1-2]"
    assert not result["changed"]


def test_check_mode_tells_what_would_be_written_where_slurm_is_not_installed(capsys) -> None:
    measured = {"measured": {"n1": HARDWARE, "n2": HARDWARE}}
    result = run(capsys, _given=measured, _ansible_diff=True)
    assert result["changed"]
    assert result["applied"] == "start"
    assert result["hardware"] == [{"nodes": "n[1-2]", **HARDWARE}]
    assert "NodeName=n[1-2] CPUs=4 RealMemory=950" in result["diff"][0]["after"]
    assert "diff" not in run(capsys, _given=measured)


def test_what_is_wrong_is_one_message(capsys) -> None:
    result = run(capsys, options={"slurm.conf": {"SelektType": 1}, "cgroup.conf": {"Constrain": 1}})
    assert result["failed"]
    assert result["msg"].startswith("2 problems:")


def test_absent_is_nothing_to_do_where_nothing_is(capsys) -> None:
    result = run(capsys, state="absent")
    assert not result["changed"]
