# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.filter.slurm_conf_text import FilterModule

text = FilterModule().filters()["slurm_conf_text"]


def test_the_file_has_what_the_role_owns_and_chose_and_the_user_changed() -> None:
    defaults, owned = {"PurgeJobAfter": "12months", "DebugLevel": "info"}, {"DbdHost": "head"}
    user = {"PurgeJobAfter": None, "ArchiveJobs": True}
    assert text(user, "slurmdbd.conf", "22.05", defaults=defaults, owned=owned).splitlines()[1:] == [
        "ArchiveJobs=yes",
        "DbdHost=head",
        "DebugLevel=info",
    ]


@pytest.mark.parametrize(
    ("options", "name", "release", "words"),
    [
        ({"DbdHost": "x", "PurgeJobsAfter": 1}, "slurmdbd.conf", "22.05", "2 problems"),
        ({}, "slurmdb.conf", "22.05", "did you mean `slurmdbd.conf`?"),
        ({}, "slurmdbd.conf", "20.02", "use Slurm 22.05 or newer"),
    ],
)
def test_what_is_wrong_is_an_error_of_the_filter(options, name, release, words) -> None:
    with pytest.raises(AnsibleFilterError, match=words.replace("?", r"\?")):
        text(options, name, release, owned={"DbdHost": "head"} if name == "slurmdbd.conf" else None)
