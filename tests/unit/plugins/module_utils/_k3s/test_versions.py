# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.versions import parse_version, refuse_step, version_in

ORDER = [
    "v1.33.6+k3s1",
    "v1.34.0-rc1+k3s1",
    "v1.34.0+k3s1",
    "v1.34.0+k3s2",
    "v1.34.2+k3s1",
    "v1.34.10+k3s1",
    "v2.0.0+k3s1",
]


def test_versions_are_ordered_as_they_came_out():
    assert sorted(map(parse_version, reversed(ORDER))) == list(map(parse_version, ORDER))
    assert [str(parse_version(text)) for text in ORDER] == ORDER


@pytest.mark.parametrize("text", ["", "1.34", "v1.34.2", "latest", "v1.34.2+rke2r1", "v1.34.2+k3s1 "[:-2] + "x1"])
def test_what_is_no_version_of_k3s_is_refused_with_an_example(text):
    with pytest.raises(InvalidInput, match=r"v1\.34\.2\+k3s1"):
        parse_version(text)


@pytest.mark.parametrize(
    ("installed", "wanted", "told"),
    [
        ("v1.34.2+k3s1", "v1.34.2+k3s1", ""),
        ("v1.34.2+k3s1", "v1.34.2+k3s2", ""),
        ("v1.34.2+k3s1", "v1.34.10+k3s1", ""),
        ("v1.34.2+k3s1", "v1.35.0+k3s1", ""),
        ("v1.34.2+k3s1", "v1.36.0+k3s1", "upgrade to the last v1.35 first"),
        ("v1.34.2+k3s1", "v2.0.0+k3s1", "can't be skipped"),
        ("v1.34.2+k3s1", "v1.34.1+k3s1", "which is older"),
        ("v1.34.2+k3s2", "v1.34.2+k3s1", "which is older"),
        ("v1.34.2+k3s1", "v1.33.9+k3s1", "k3s can't go back"),
    ],
)
def test_a_step_is_to_the_next_minor_version_at_most_and_never_back(installed, wanted, told):
    assert (told in refuse_step(installed, wanted)) if told else refuse_step(installed, wanted) == ""


def test_the_version_is_read_from_what_the_program_prints():
    assert version_in("k3s version v1.34.2+k3s1 (abcdef12)\ngo version go1.24.9\n") == "v1.34.2+k3s1"
    assert version_in("bash: k3s: command not found") == ""
