# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.releases import check_step, release_of, way

# The table of https://slurm.schedmd.com/upgrades.html.
COMPATIBLE = {
    (23, 2): [(22, 5), (21, 8)],
    (23, 11): [(23, 2), (22, 5)],
    (24, 5): [(23, 11), (23, 2)],
    (24, 11): [(24, 5), (23, 11), (23, 2)],
    (25, 5): [(24, 11), (24, 5), (23, 11)],
    (25, 11): [(25, 5), (24, 11), (24, 5)],
}
ALL = sorted({*COMPATIBLE, *(old for olds in COMPATIBLE.values() for old in olds)})


@pytest.mark.parametrize("new", COMPATIBLE)
def test_the_steps_of_schedmds_table_and_no_others_are_taken_at_once(new):
    assert [old for old in ALL if old < new and way(old, new) == [new]] == sorted(COMPATIBLE[new])


@pytest.mark.parametrize(
    ("old", "new", "steps"),
    [
        ((22, 5), (24, 11), [(23, 11), (24, 11)]),
        ((21, 8), (25, 11), [(23, 2), (24, 11), (25, 11)]),
        ((24, 11), (24, 11), []),
    ],
)
def test_the_way_has_as_few_steps_as_can_be(old, new, steps):
    assert way(old, new) == steps


def test_a_step_that_skips_too_much_is_refused_with_the_way_to_go():
    with pytest.raises(HpcError) as error:
        check_step((22, 5), (24, 11), "This")
    assert "This is of Slurm 22.05, and 24.11 takes over from 23.02, 23.11, 24.05 only." in str(error.value)
    assert "go 22.05 -> 23.11 -> 24.11" in str(error.value)


def test_there_is_no_way_back():
    with pytest.raises(HpcError, match="Slurm never goes back"):
        check_step((24, 11), (22, 5), "This")


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("slurm-wlm 22.05.8", (22, 5)),
        ("slurm 24.11.5", (24, 11)),
        ("22.05.8-4+deb12u3", (22, 5)),
        ("1:23.11.4-1.2", (23, 11)),
        ("no version", None),
    ],
)
def test_releases_are_read_from_what_slurm_and_debian_write(version, release):
    assert release_of(version) == release
