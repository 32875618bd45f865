# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm import keys


@pytest.mark.parametrize(
    ("text", "release"),
    [("slurm-wlm 22.05.8", "22.05"), ("slurm 24.11.5", "24.11"), ("23.02", "23.02"), ("slurm 26.05.1", "25.05")],
)
def test_the_release_is_found_in_what_the_daemon_says(text, release) -> None:
    assert keys.release_of(text) == release


@pytest.mark.parametrize("text", ["slurm-wlm 21.08.8", "command not found", ""])
def test_older_releases_and_other_words_are_errors(text) -> None:
    with pytest.raises(HpcError, match=r"use Slurm 22\.05 or newer"):
        keys.release_of(text)


@pytest.mark.parametrize(
    ("name", "lead", "key", "release", "canonical"),
    [
        ("slurm.conf", "", "selecttype", "22.05", "SelectType"),
        ("slurm.conf", "NodeName", "cores_per_socket", "24.11", "CoresPerSocket"),
        ("slurm.conf", "PartitionName", "max_time", "22.05", "MaxTime"),
        ("slurm.conf", "", "HashPlugin", "24.05", "HashPlugin"),
        ("slurm.conf", "", "PowerPlugin", "23.11", "PowerPlugin"),
        ("slurmdbd.conf", "", "PurgeJobAfter", "22.05", "PurgeJobAfter"),
        ("cgroup.conf", "", "CgroupAutomount", "23.02", "CgroupAutomount"),
        ("gres.conf", "NodeName", "File", "22.05", "File"),
        ("topology.conf", "SwitchName", "nodes", "24.11", "Nodes"),
    ],
)
def test_a_key_is_known_in_any_case_and_with_underscores(name, lead, key, release, canonical) -> None:
    assert keys.look_up(name, lead, key, release) == (canonical, "")


@pytest.mark.parametrize(
    ("name", "lead", "key", "release", "words"),
    [
        ("slurm.conf", "", "SelektType", "22.05", "did you mean `SelectType`?"),
        ("slurm.conf", "", "HashPlugin", "22.05", "which has it from 24.05 on"),
        ("slurm.conf", "", "PowerPlugin", "24.05", "which had it until 23.11 only"),
        ("cgroup.conf", "", "CgroupAutomount", "24.11", "which had it until 23.02 only"),
        ("slurm.conf", "PartitionName", "defualt", "24.11", "no key of PartitionName of slurm.conf in Slurm 24.11"),
        ("topology.conf", "BlockName", "Nodes", "22.05", "from 23.11 on"),
        ("slurm.conf", "", "zzzzzz", "24.11", "remove it"),
    ],
)
def test_what_a_release_does_not_know_is_named_with_what_to_do(name, lead, key, release, words) -> None:
    canonical, wrong = keys.look_up(name, lead, key, release)
    assert canonical == ""
    assert words in wrong


@pytest.mark.parametrize(
    ("name", "key", "old", "new"),
    [
        ("slurm.conf", "MessageTimeout", "reconfigure", "reconfigure"),
        ("slurm.conf", "SelectType", "restart", "reconfigure"),
        ("slurm.conf", "PriorityType", "restart", "reconfigure"),
        ("slurm.conf", "JobSubmitPlugins", "reconfigure", "reconfigure"),
        ("slurm.conf", "MaxJobCount", "restart", "reconfigure"),
        ("slurm.conf", "SlurmctldPort", "restart", "restart"),
        ("slurm.conf", "SlurmctldHost", "restart", "restart"),
        ("gres.conf", "", "restart", "reconfigure"),
        ("cgroup.conf", "", "reconfigure", "reconfigure"),
        ("topology.conf", "", "reconfigure", "reconfigure"),
    ],
)
def test_slurmctld_is_restarted_only_for_what_its_release_can_not_reread(name, key, old, new) -> None:
    assert [keys.controller_step(name, key, release) for release in ("22.05", "23.02")] == [old, old]
    assert [keys.controller_step(name, key, release) for release in ("23.11", "24.11")] == [new, new]


@pytest.mark.parametrize(
    ("name", "key", "old", "new"),
    [
        ("slurm.conf", "TaskPlugin", True, False),
        ("slurm.conf", "ProctrackType", True, False),
        ("slurm.conf", "MessageTimeout", False, False),
        ("slurm.conf", "SlurmdPort", True, True),
        ("gres.conf", "", True, False),
        ("cgroup.conf", "ConstrainCores", True, False),
        ("topology.conf", "", False, False),
    ],
)
def test_slurmd_is_restarted_only_for_what_its_release_can_not_reread(name, key, old, new) -> None:
    assert keys.needs_slurmd_restart(name, key, "22.05") is old
    assert keys.needs_slurmd_restart(name, key, "24.11") is new


def test_every_word_of_the_tables_is_a_key_with_releases_that_are_known() -> None:
    for name in keys.FILES:
        for lead in ("", *keys.leads(name).values()):
            for release in keys.RELEASES:
                assert all(keys.normal(key) == form for form, key in keys.table(name, lead, release).items())


def test_lists_of_prologs_become_lines_where_the_release_takes_several() -> None:
    assert [keys.repeats("Prolog", release) for release in ("22.05", "23.11", "24.05")] == [False, False, True]
    assert not keys.repeats("SchedulerParameters", "24.11")
