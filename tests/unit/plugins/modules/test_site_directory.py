# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.modules import site_directory

FILES = {"site.yml": "- x\n", "group_vars/all.yml": "---\n"}


def call(path, check=False, **params):
    params = {"path": str(path), "cluster_name": path.name, "files": FILES, **params}
    return site_directory.run(SimpleNamespace(params=params, check_mode=check))


def test_a_site_is_written_where_nothing_was(tmp_path) -> None:
    result = call(tmp_path / "deep/lab")
    assert result["files"] == ["group_vars/all.yml", "site.yml"]
    assert (tmp_path / "deep/lab/group_vars/all.yml").read_text() == "---\n"


def test_check_mode_shows_the_files_and_makes_none(tmp_path) -> None:
    result = call(tmp_path / "lab", check=True)
    assert [entry["after"] for entry in result["diff"]] == ["---\n", "- x\n"]
    assert not (tmp_path / "lab").exists()


def test_an_empty_directory_is_filled(tmp_path) -> None:
    (tmp_path / "lab").mkdir()
    assert call(tmp_path / "lab")["changed"]


def test_a_second_run_is_refused_and_names_what_is_there(tmp_path) -> None:
    call(tmp_path / "lab")
    (tmp_path / "lab/site.yml").write_text("mine")
    with pytest.raises(HpcError, match=r"lab is not empty.*it has group_vars, site\.yml"):
        call(tmp_path / "lab")
    assert (tmp_path / "lab/site.yml").read_text() == "mine"
