# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import os
import tarfile

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.plugin_utils import _mpi_source as sources


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/config").write_text("secret")
    (tmp_path / "src/app.c").write_text("int main;")
    (tmp_path / "mpi.yml").write_text("from: src/app.c\nto: app\nhosts: 2\n")
    (tmp_path / "link").symlink_to("src")
    return tmp_path


def names(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member.uname for member in tar}


def test_a_tree_goes_over_without_what_git_keeps_and_without_who_made_it(tree):
    assert names(sources.pack(tree)) == {"link": "", "mpi.yml": "", "src/app.c": ""}
    before = sources.pack(tree)
    os.utime(tree / "mpi.yml", (1, 1))
    assert sources.pack(tree) == before


def test_the_manifest_is_read_and_its_sources_are_looked_for(tree):
    assert sources.read(tree).hosts == 2
    (tree / "src/app.c").rename(tree / "src/ap.c")
    with pytest.raises(InvalidInput, match=r"did you mean 'src/ap\.c'"):
        sources.read(tree)


def test_what_can_not_go_over_is_refused(tree, monkeypatch):
    with pytest.raises(InvalidInput, match="no directory"):
        sources.read(tree / "nothing")
    os.mkfifo(tree / "pipe")
    with pytest.raises(InvalidInput, match="'pipe', which is no plain file"):
        sources.pack(tree)
    (tree / "pipe").unlink()
    monkeypatch.setattr(sources, "MOST_MB", 0)
    with pytest.raises(InvalidInput, match="push it with git"):
        sources.pack(tree)
