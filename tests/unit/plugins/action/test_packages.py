# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from types import SimpleNamespace

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.turnkey.hpc.plugins.action.packages import ActionModule, collect


class Recorded(ActionModule):
    """The plugin without a host."""

    def _execute_module(self, module_name, module_args, **more):
        return {"changed": True, "ran": module_name}


def call(variables):
    task = SimpleNamespace(
        args={"name": ["git"], "owner": "mpi_service"},
        async_val=0,
        check_mode=False,
        diff=False,
        action="turnkey.hpc.packages",
    )
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))
    loader = DataLoader()
    return Recorded(task, connection, SimpleNamespace(), loader, Templar(loader=loader), None).run(task_vars=variables)


def test_wishes_are_kept_by_owner_without_doubles():
    noted = collect({"slurm": ["munge"]}, {"owner": "slurm", "name": ["slurmd", "munge"]})
    assert collect(noted, {"owner": "users", "name": "sudo"}) == {"slurm": ["munge", "slurmd"], "users": ["sudo"]}


def test_while_a_bundle_is_made_nothing_is_installed():
    result = call({"__bundle_collects": True, "ansible_facts": {"bundle_packages": {"users": ["sudo"]}}})
    assert result["ansible_facts"] == {"bundle_packages": {"users": ["sudo"], "mpi_service": ["git"]}}
    assert "ran" not in result


def test_otherwise_the_module_runs_on_the_host():
    assert call({})["ran"] == "turnkey.hpc.packages"
