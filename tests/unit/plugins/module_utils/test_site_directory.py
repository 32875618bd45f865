# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _site_directory
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput


@pytest.mark.parametrize(
    ("name", "cluster", "files", "message"),
    [
        ("lab", "My_Lab", {}, "'My_Lab' can't be used.*last part of the directory's name"),
        ("lab", "lab", {"../x": ""}, r"'\.\./x' is no name"),
        ("lab", "lab", {"/etc/passwd": ""}, "'/etc/passwd' is no name"),
        ("file", "lab", {}, "is there and is no directory"),
        ("dangling", "lab", {}, "is there and is no directory"),
        ("full", "lab", {}, "it has f00, f01.* and 2 more"),
        ("full", "9lab", {"..": ""}, "3 problems"),
    ],
)
def test_what_is_in_the_way_is_an_error_and_writes_nothing(tmp_path, name, cluster, files, message) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "full").mkdir()
    for number in range(12):
        (tmp_path / "full" / f"f{number:02d}").touch()
    with pytest.raises(InvalidInput, match=message):
        _site_directory.plan_site(tmp_path / name, cluster, files)


def test_a_file_that_appears_while_writing_is_not_overwritten(tmp_path) -> None:
    plan = _site_directory.plan_site(tmp_path / "lab", "lab", {"site.yml": "ours"})
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/site.yml").write_text("mine")
    with pytest.raises(FileExistsError):
        _site_directory.write_site(plan)
    assert (tmp_path / "lab/site.yml").read_text() == "mine"
