# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import (
    File,
    Manifest,
    Target,
    check_age,
    check_path,
    check_targets,
    compare,
    dump,
    parse,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput

SHA = "a" * 64
DEB = {
    "path": "apt/pool/bookworm/less_590-2.1_amd64.deb",
    "size": 3,
    "sha256": SHA,
    "kind": "deb",
    "name": "less",
    "version": "590-2.1",
    "source": "http://deb.debian.org/less.deb",
    "needed_by": ["baseline"],
    "release": "12",
    "architecture": "amd64",
}
WHEEL = {
    "path": "wheels/debian12/a-1.0-cp311-cp311-manylinux_2_17_x86_64.whl",
    "size": 3,
    "sha256": SHA,
    "kind": "wheel",
    "name": "a",
    "version": "1.0",
    "release": "12",
}
BUNDLE = {
    "schema": 1,
    "cluster": "lab",
    "created": "2026-11-22T16:00:00Z",
    "targets": [{"release": "12", "architecture": "amd64"}],
    "files": [DEB],
}


def text(**changes):
    return json.dumps({**BUNDLE, **changes})


def with_file(**changes):
    return text(files=[{**DEB, **changes}])


def with_wheel(name):
    return text(files=[{**WHEEL, "path": f"wheels/debian12/{name}"}])


def test_a_manifest_is_read_and_written_without_a_loss():
    manifest = parse(text(), "manifest.json")
    assert manifest.files[0].needed_by == ("baseline",)
    assert parse(dump(manifest), "manifest.json") == manifest


def test_equal_manifests_have_equal_texts_whatever_the_order():
    files = [File(f"npm/{name}.tgz", 1, SHA, "npm", name) for name in "ab"]
    one = Manifest("lab", BUNDLE["created"], (Target("12", "amd64"),), tuple(files))
    other = Manifest("lab", BUNDLE["created"], (Target("12", "amd64"),), tuple(reversed(files)))
    assert dump(one) == dump(other)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("{", "is no JSON"),
        ("[]", "schema None"),
        (text(schema=2), "has the schema 2, not 1"),
        (text(more=1), "the unknown key 'more'"),
        (json.dumps({"schema": 1}), "no files"),
        (text(created="yesterday"), "created is 'yesterday'"),
        (text(files={}), "files is no list"),
        (text(files=["x"]), "entry 1 of files is no object"),
        (text(targets=[{"release": "11", "architecture": "amd64"}]), "a target is"),
        (text(files=[DEB, DEB]), "is listed twice"),
        (text(files=[DEB, {**DEB, "path": DEB["path"].replace("less", "LESS")}]), "is listed twice"),
        (with_file(mode="0777"), "has the unknown key 'mode'"),
        (with_file(size="3"), "size is '3'"),
        (with_file(size=-1), "size is -1"),
        (with_file(size=True), "size is True"),
        (with_file(sha256="A" * 64), "sha256 is"),
        (with_file(sha256=""), "sha256 is ''"),
        (with_file(kind="rpm"), "kind is 'rpm'"),
        (with_file(name=""), "has no name"),
        (with_file(version=3), "version is 3"),
        (with_file(needed_by="slurm"), "needed_by is no list"),
        (with_file(path="files/x/1/less_590-2.1_amd64.deb"), "a file of kind deb is in apt"),
        (with_file(path="apt/../../etc/passwd"), "leads out of the bundle"),
        (with_file(path="/etc/passwd"), "no plain relative path"),
        (with_file(release="13"), "is for Debian 13, which this bundle is not for"),
        (with_file(architecture="arm64"), "is for the architecture amd64, not arm64"),
        (
            with_file(path="apt/pool/bookworm/less_590-2.1_arm64.deb", architecture="arm64"),
            "is for the architecture arm64",
        ),
        (with_file(path="apt/pool/trixie/less_590-2.1_amd64.deb"), "is not where the packages of Debian 12 are"),
        (with_wheel("a-1.0-cp313-cp313-manylinux_2_17_x86_64.whl"), "not for the Python 3.11"),
        (with_wheel("a-1.0-cp312-abi3-manylinux_2_17_x86_64.whl"), "not for the Python 3.11"),
        (with_wheel("a-1.0-cp311-cp311-manylinux_2_17_aarch64.whl"), "not for x86_64"),
        (with_wheel("a-1.0-cp311-cp311-win_amd64.whl"), "not for x86_64"),
        (with_wheel("a-1.0.tar.gz"), "has not the name of a wheel"),
    ],
)
def test_a_manifest_that_can_not_be_right_is_refused_with_the_reason(given, problem):
    with pytest.raises(InvalidInput) as caught:
        parse(given, "manifest.json")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "a-1.0-py3-none-any.whl",
        "a-1.0-py2.py3-none-any.whl",
        "a-1.0-cp38-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "a-1.0-1-cp311-cp311-manylinux_2_17_x86_64.whl",
        "a-1.0-cp311-none-any.whl",
    ],
)
def test_a_wheel_that_fits_the_python_of_the_release_is_taken(name):
    assert parse(with_wheel(name), "manifest.json").files


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(InvalidInput) as caught:
        parse(text(created="", files=[{**DEB, "size": None}, {**DEB, "kind": "rpm"}]), "manifest.json")
    assert all(word in str(caught.value) for word in ("3 problems", "created", "size is None", "'rpm'"))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "~/a",
        "a//b",
        "a/./b",
        "../a",
        "a/..",
        "a\\b",
        "a\nb",
        "a/%2e%2e/b",
        "manifest.json",
        "manifest.json.asc",
    ],
)
def test_a_path_that_is_not_plain_and_inside_is_refused(path):
    assert check_path(path)


def test_an_ordinary_path_is_taken():
    assert not check_path("files/k3s/v1.33.4+k3s1/k3s-airgap-images-amd64.tar.zst")


def test_a_bundle_for_other_machines_than_those_of_the_inventory_is_told():
    manifest = parse(text(), "manifest.json")
    assert not check_targets(manifest, [Target("12", "amd64")])
    assert check_targets(manifest, [Target("13", "amd64"), Target("12", "arm64")]) == [
        "it is for Debian 12 amd64, not for Debian 13 amd64",
        "it is for Debian 12 amd64, not for Debian 12 arm64",
    ]


def test_a_bundle_may_not_be_older_than_the_one_that_is_installed():
    old, new = (parse(text(created=f"2026-11-2{day}T00:00:00Z"), "m") for day in (1, 2))
    assert "before the one that the mirror has" in check_age(old, new)[0]
    assert not check_age(new, old)
    assert not check_age(new, new)
    assert not check_age(new, None)


def test_the_difference_of_two_bundles_names_what_came_went_and_changed():
    old = parse(text(files=[DEB, WHEEL]), "m")
    upgraded = {**DEB, "path": DEB["path"].replace("2.1", "2.2"), "version": "590-2.2", "sha256": "b" * 64}
    image = {
        "path": "images/mini.tar",
        "size": 1,
        "sha256": SHA,
        "kind": "image",
        "name": "mini:1",
        "version": "1",
        "reference": "mini:1",
    }
    new = parse(text(files=[upgraded, image]), "m")
    assert compare(old, new).lines == [
        "+ image mini:1 1",
        "- wheel a 1.0 (Debian 12)",
        "~ deb less 590-2.1 -> 590-2.2 (Debian 12)",
    ]
    assert compare(old, old).lines == []
