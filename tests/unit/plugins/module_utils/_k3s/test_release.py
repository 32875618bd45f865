# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.release import find_artifacts, read_sums, sha256_of

PROGRAM, IMAGES = "k3s", "k3s-airgap-images-amd64.tar.zst"


def release(place, *names, sums=None):
    for name in names:
        (place / name).write_bytes(name.encode())
    lines = [f"{hashlib.sha256(name.encode()).hexdigest()}  {name}" for name in sums or names]
    (place / "sha256sum-amd64.txt").write_text("\n".join(lines) + "\n")


def test_program_and_images_come_with_the_sums_of_the_release(tmp_path):
    release(tmp_path, PROGRAM, IMAGES, sums=(PROGRAM, IMAGES, "k3s-images.txt"))
    program, images = find_artifacts(str(tmp_path), "amd64")
    assert (program.kind, program.name, images.kind, images.name) == ("program", "k3s", "images", IMAGES)
    assert program.sha256 == sha256_of(program.path)
    assert images.sha256 == sha256_of(images.path)


def test_a_tarball_that_is_packed_otherwise_will_do(tmp_path):
    release(tmp_path, PROGRAM, "k3s-airgap-images-amd64.tar.gz")
    assert find_artifacts(str(tmp_path), "amd64")[1].name == "k3s-airgap-images-amd64.tar.gz"


def test_the_program_of_another_processor_has_another_name_and_arrives_as_k3s(tmp_path):
    (tmp_path / "k3s-arm64").write_text("x")
    (tmp_path / "k3s-airgap-images-arm64.tar").write_text("x")
    sums = f"{'0' * 64}  k3s-arm64\n{'1' * 64}  k3s-airgap-images-arm64.tar\n"
    (tmp_path / "sha256sum-arm64.txt").write_text(sums)
    assert [(item.name, item.sha256[0]) for item in find_artifacts(str(tmp_path), "arm64")] == [
        ("k3s", "0"),
        ("k3s-airgap-images-arm64.tar", "1"),
    ]


def test_everything_that_is_missing_is_named_at_once(tmp_path):
    with pytest.raises(HpcError) as caught:
        find_artifacts(str(tmp_path), "amd64")
    assert all(
        name in str(caught.value)
        for name in (f"{PROGRAM} is missing", IMAGES, "sha256sum-amd64.txt", "k3s_release_dir")
    )


def test_a_file_without_a_sum_is_refused(tmp_path):
    release(tmp_path, PROGRAM, IMAGES, sums=(PROGRAM,))
    with pytest.raises(HpcError, match="has no line for k3s-airgap-images"):
        find_artifacts(str(tmp_path), "amd64")


def test_an_unknown_processor_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(HpcError, match=r"k3s_architecture is 'riscv'.*amd64, arm64"):
        find_artifacts(str(tmp_path), "riscv")


def test_sums_are_read_with_and_without_the_mark_of_binary_files():
    digest = "a" * 64
    assert read_sums(f"{digest}  k3s\n{digest} *other\n# nothing\nshort  x\n") == {"k3s": digest, "other": digest}
