# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import io
import tarfile

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._images import (
    OverlayEntry,
    build_name,
    expired_builds,
    inputs_hash,
    overlay_tar,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import check_cluster_name
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.docker_image import ImageBuild


@pytest.fixture
def role(tmp_path):
    (tmp_path / "role/vars").mkdir(parents=True)
    (tmp_path / "role/vars/main.yml").write_text("a: 1\n")
    (tmp_path / "role/install.yml").write_text("- b\n")
    return tmp_path / "role"


def changed_content(role):
    (role / "vars/main.yml").write_text("a: 2\n")


def added_file(role):
    (role / "vars/more.yml").write_text("")


def renamed_file(role):
    (role / "vars/main.yml").rename(role / "vars/other.yml")


@pytest.mark.parametrize("change", [changed_content, added_file, renamed_file])
def test_the_hash_changes_with_the_files(role, change):
    before = inputs_hash([role / "vars", role / "install.yml"], ["x"])
    change(role)
    assert inputs_hash([role / "vars", role / "install.yml"], ["x"]) != before


def test_the_hash_changes_with_the_values_and_not_with_the_place(role, tmp_path):
    first = inputs_hash([role], ["x"])
    assert inputs_hash([role], ["y"]) != first
    assert inputs_hash([role], ["x"]) == first
    assert inputs_hash([role, role / "absent"], ["x"]) == first
    (tmp_path / "elsewhere").mkdir()
    assert inputs_hash([role.rename(tmp_path / "elsewhere/role")], ["x"]) == first


def test_the_overlay_holds_files_programs_and_links_of_root():
    data = overlay_tar(
        [
            OverlayEntry("/etc/a", "text\n"),
            OverlayEntry("/sbin/b", "#!/bin/sh\n", mode=0o755),
            OverlayEntry("/etc/c", link="a"),
        ]
    )
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {m.name: (m.mode, m.uid, m.linkname) for m in archive.getmembers()}
        assert archive.extractfile("etc/a").read() == b"text\n"
    assert members == {"etc/a": (0o644, 0, ""), "sbin/b": (0o755, 0, ""), "etc/c": (0o644, 0, "a")}


@pytest.mark.parametrize("path", ["etc/a", "/etc/../a"])
def test_an_overlay_path_that_leaves_the_image_is_refused(path):
    with pytest.raises(InvalidInput, match="absolute"):
        overlay_tar([OverlayEntry(path, "")])


def test_an_unknown_release_names_the_known_ones():
    with pytest.raises(InvalidInput, match=r"'11'.*12, 13"):
        assert ImageBuild("turnkey/node:debian11", "11", "http://mirror", "auto", "b").codename


def test_the_bootstrap_image_depends_on_what_is_laid_over_it():
    plain = ImageBuild("n:1", "12", "http://mirror", "auto", "b")
    assert plain.bootstrap_hash() == ImageBuild("other:2", "12", "http://mirror", "registry", "b2").bootstrap_hash()
    assert plain.bootstrap_hash() != ImageBuild("n:1", "13", "http://mirror", "auto", "b").bootstrap_hash()
    assert (
        plain.bootstrap_hash()
        != ImageBuild("n:1", "12", "http://mirror", "auto", "b", (OverlayEntry("/a", "b"),)).bootstrap_hash()
    )


def test_a_build_is_known_by_its_name_and_so_is_its_end():
    name = build_name(1_800_000_000, 2)
    assert name == "build-1800007200000"
    assert check_cluster_name(name) == []
    names = [name, "build-farm", "demo", "build-1800007200"]
    assert expired_builds(names, 1_800_007_199) == []
    assert expired_builds(names, 1_800_007_201) == [name]
