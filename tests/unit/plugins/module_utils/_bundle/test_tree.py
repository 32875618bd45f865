# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import KINDS, MANIFEST, check_tree, parse
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.tree import check_directory, digest, scan
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput


def problems(directory):
    manifest = parse((directory / MANIFEST).read_text(), "manifest.json")
    return check_tree(manifest, scan(directory, {file.path: file.size for file in manifest.files}))


def of_kind(directory, kind):
    manifest = parse((directory / MANIFEST).read_text(), "manifest.json")
    return directory / manifest.of(kind)[0].path


def test_the_bundle_has_a_file_of_every_kind(bundle):
    manifest = parse((bundle[0] / MANIFEST).read_text(), "manifest.json")
    assert {file.kind for file in manifest.files} == set(KINDS)


def test_a_bundle_as_it_was_built_is_accepted(bundle):
    assert problems(bundle[0]) == []


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return "was altered"


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])
    return "is cut off"


def grow(path):
    path.write_bytes(path.read_bytes() + b"\n")
    return "was altered"


def drop(path):
    path.unlink()
    return "is missing"


def link(path):
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)
    return "is a link"


def link_out(path):
    path.unlink()
    path.symlink_to("/etc/passwd")
    return "is a link"


def pipe(path):
    path.unlink()
    os.mkfifo(path)
    return "is no ordinary file"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", [flip, cut, grow, drop, link, link_out, pipe])
def test_whatever_is_done_to_a_file_is_noticed(bundle, kind, harm):
    path = of_kind(bundle[0], kind)
    expected = harm(path)
    found = problems(bundle[0])
    assert any(f"{path.relative_to(bundle[0])} {expected}" in one for one in found), found


@pytest.mark.parametrize("kind", KINDS)
def test_two_files_that_change_places_are_noticed(bundle, kind):
    one, other = of_kind(bundle[0], kind), of_kind(bundle[0], "npm" if kind != "npm" else "chart")
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    found = problems(bundle[0])
    assert len(found) == 2
    assert all("was altered" in text or "is cut off" in text for text in found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_not_listed_is_noticed_wherever_it_is(bundle, kind):
    extra = of_kind(bundle[0], kind).with_name("more_1.0_amd64.deb")
    extra.write_text("more")
    assert problems(bundle[0]) == [f"{extra.relative_to(bundle[0])} is not in the manifest"]


def test_a_link_is_never_followed(tmp_path):
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="link"):
        digest(tmp_path / "link")


def test_a_directory_with_other_things_in_it_is_no_bundles(tmp_path):
    (tmp_path / "apt").mkdir()
    check_directory(tmp_path)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidInput, match=r"thesis\.tex"):
        check_directory(tmp_path)
