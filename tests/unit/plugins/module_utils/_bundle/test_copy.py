# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import subprocess

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.copy import Copy, batches
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import KINDS, MANIFEST, File
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def place(copy, kind):
    return copy.directory / copy.manifest.of(kind)[0].path


def pack(directory, files, archive):
    subprocess.run(["tar", "-C", directory, "-cf", archive, *(file.path for file in files)], check=True)


def bring(copy, source, archive):
    missing, extra = copy.look()
    pack(source, missing, archive)
    copy.unpack(archive)
    copy.finish(extra)


def test_a_copy_is_the_bundle(sealed, tmp_path):
    copy = Copy(tmp_path / "copy", (sealed[0] / MANIFEST).read_text())
    bring(copy, sealed[0], tmp_path / "a.tar")
    assert copy.look() == ([], [])
    assert copy.current()


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_brings_what_is_wrong_and_removes_what_is_too_much(bundle, sealed, kind, tmp_path):
    copy = Copy(bundle[0], (sealed[0] / MANIFEST).read_text())
    path = place(copy, kind)
    flip(path)
    (bundle[0] / "files" / "more").write_text("more")
    missing, extra = copy.look()
    assert [file.path for file in missing] == [str(path.relative_to(bundle[0]))]
    assert extra == ["files/more"]
    bring(copy, sealed[0], tmp_path / "a.tar")
    assert copy.look() == ([], [])


def test_a_link_in_the_way_is_replaced_and_what_it_leads_to_stays(bundle, sealed, tmp_path):
    copy = Copy(bundle[0], (sealed[0] / MANIFEST).read_text())
    outside = tmp_path / "outside"
    outside.write_text("mine")
    path = place(copy, "file")
    path.unlink()
    path.symlink_to(outside)
    bring(copy, sealed[0], tmp_path / "a.tar")
    assert copy.look() == ([], [])
    assert outside.read_text() == "mine"


def test_a_file_that_is_altered_on_its_way_is_not_taken(bundle, sealed, tmp_path):
    copy = Copy(tmp_path / "copy", (sealed[0] / MANIFEST).read_text())
    flip(bundle[0] / copy.manifest.of("file")[0].path)
    pack(bundle[0], copy.manifest.of("file"), tmp_path / "a.tar")
    with pytest.raises(HpcError, match="was altered on its way"):
        copy.unpack(tmp_path / "a.tar")
    assert not place(copy, "file").exists()


def test_what_the_manifest_has_not_is_not_taken(sealed, tmp_path):
    (tmp_path / "passwd").write_text("x")
    subprocess.run(["tar", "-C", tmp_path, "-cf", tmp_path / "a.tar", "passwd"], check=True)
    copy = Copy(tmp_path / "copy", (sealed[0] / MANIFEST).read_text())
    with pytest.raises(HpcError, match="which the manifest has not"):
        copy.unpack(tmp_path / "a.tar")


def test_an_older_bundle_is_refused(bundle, sealed):
    data = json.loads((sealed[0] / MANIFEST).read_text())
    older = json.dumps({**data, "created": "2020-01-01T00:00:00Z"})
    with pytest.raises(InvalidInput, match="before the one that the mirror has"):
        Copy(bundle[0], older).check_age()
    Copy(bundle[0], (sealed[0] / MANIFEST).read_text()).check_age()


def test_a_directory_with_other_things_in_it_is_never_taken_for_a_copy(sealed, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidInput, match=r"thesis\.tex"):
        Copy(tmp_path / "home", (sealed[0] / MANIFEST).read_text()).look()


def test_files_travel_in_groups_of_a_limited_size_and_none_is_lost():
    files = [File(name, size, "", "file", name) for name, size in (("a", 4), ("b", 4), ("c", 4), ("d", 20), ("e", 1))]
    assert [[file.path for file in group] for group in batches(files, 10)] == [["a", "b"], ["c"], ["d"], ["e"]]
    assert list(batches([], 10)) == []
