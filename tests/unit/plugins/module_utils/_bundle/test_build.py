# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.build import (
    Builder,
    GivenFile,
    GivenImage,
    Lock,
    Wishes,
    check_files,
    image_path,
    load,
    wheel_index,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import File, Target
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput


def test_the_index_of_wheels_has_a_page_for_each_project_by_its_normal_name():
    wheel = File("wheels/debian12/Foo_Bar-1-py3-none-any.whl", 1, "ab", "wheel", "Foo_Bar", "1", release="12")
    pages = wheel_index([wheel])
    assert list(pages) == ["wheels/debian12/simple/foo-bar/index.html"]
    assert 'href="../../Foo_Bar-1-py3-none-any.whl#sha256=ab"' in next(iter(pages.values()))


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (GivenFile("k3s", "v1", "https://example.org/k3s"), "needs its sha256"),
        (GivenFile("k3s", "../../etc", "/tmp/k3s"), "leads out of the bundle"),
        (GivenFile("k3s", "v1", "/tmp/k3s", kind="rpm"), "kind is 'rpm'"),
    ],
)
def test_a_file_that_could_be_anything_is_refused(file, problem):
    with pytest.raises(InvalidInput, match=problem):
        check_files([file])


def test_two_files_at_one_path_are_refused():
    with pytest.raises(InvalidInput, match="is given twice"):
        check_files([GivenFile("k3s", "v1", "/a/k3s"), GivenFile("k3s", "v1", "/b/k3s")])


def test_a_plus_in_an_address_is_a_plus_in_the_bundle():
    file = GivenFile("k3s", "v1.33.4+k3s1", "https://example.org/v1.33.4%2Bk3s1/k3s?x=1", "a" * 64)
    check_files([file])
    assert file.path == "files/k3s/v1.33.4+k3s1/k3s"


def test_the_file_of_an_image_has_a_plain_name():
    assert image_path("docker.io/library/busybox:1.36") == "images/docker.io_library_busybox_1.36.tar"


SOURCES = ["http://deb.example.org/debian {codename} main"]
DEB = b"a package"
STANZA = "Package: less\nVersion: 590-2.1\nArchitecture: amd64\nFilename: pool/less.deb\nSize: 9\n"


@pytest.fixture
def build(tmp_path, run, sealed):
    """A builder of bundles whose APT is recorded, and whose gpg and files are real."""
    package = tmp_path / "less.deb"
    package.write_bytes(DEB)
    sha256 = subprocess.run(["sha256sum", package], check=True, capture_output=True, text=True).stdout.split()[0]

    def recorded(argv, stdin=None):
        if argv[0] == "apt-get":
            return 0, f"'file://{package}' less_590-2.1_amd64.deb 9 SHA256:{sha256}\n" if "install" in argv else "", ""
        if argv[0] == "apt-cache":
            return 0, STANZA, ""
        if argv[0] == "skopeo":
            return 127, "", ""
        if argv[1:4] == ["-m", "pip", "download"]:
            call.pip.append(argv)
            if call.wheels is None:
                return 1, "", "no network"
            for name in call.wheels:
                Path(argv[argv.index("--dest") + 1], name).write_text("a wheel")
            return 0, "", ""
        return run(argv, stdin)

    def call(check_mode=False, **more):
        target = Target("12", "amd64")
        wishes = Wishes("lab", {target: [{"baseline": ["less"]}]}, SOURCES, **more)
        return Builder(recorded, tmp_path / "bundle", tmp_path / "key", tmp_path / "cache").build(wishes, check_mode)

    call.directory, call.pip, call.wheels = tmp_path / "bundle", [], []
    return call


def test_a_bundle_that_is_as_it_should_be_stays_with_its_date_and_signature(build):
    manifest, difference = build()
    assert difference.lines == ["+ deb less 590-2.1 (Debian 12)"]
    before = {path: path.stat().st_mtime_ns for path in build.directory.rglob("*")}
    assert build() == (manifest, type(difference)())
    assert {path: path.stat().st_mtime_ns for path in build.directory.rglob("*")} == before


def test_check_mode_tells_what_is_new_and_writes_nothing(build):
    _manifest, difference = build(check_mode=True)
    assert difference.lines == ["+ deb less 590-2.1 (Debian 12)"]
    assert not build.directory.exists()


def test_a_file_that_was_harmed_is_brought_once_more(build):
    build()
    path = next(build.directory.glob("apt/pool/bookworm/*.deb"))
    path.write_bytes(b"x" * len(DEB))
    build()
    assert path.read_bytes() == DEB


def test_what_is_not_wanted_any_more_goes(build, tmp_path):
    (tmp_path / "k3s").write_text("k3s")
    build(files=[GivenFile("k3s", "v1", str(tmp_path / "k3s"))])
    assert (build.directory / "files/k3s/v1/k3s").exists()
    _manifest, difference = build()
    assert difference.lines == ["- file k3s v1"]
    assert not (build.directory / "files").exists()
    assert load(build.directory).of("file") == []


def test_without_skopeo_the_remedy_names_its_package(build):
    with pytest.raises(HpcError, match="apt-get install skopeo"):
        build(images=[GivenImage("docker.io/library/busybox:1")])


def test_a_given_file_with_another_digest_is_refused(build, tmp_path):
    (tmp_path / "k3s").write_text("k3s")
    with pytest.raises(InvalidInput, match="has the sha256"):
        build(files=[GivenFile("k3s", "v1", str(tmp_path / "k3s"), "a" * 64)])


def test_a_directory_with_other_things_in_it_is_left_alone(build):
    build.directory.mkdir()
    (build.directory / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidInput, match=r"thesis\.tex"):
        build()
    assert (build.directory / "thesis.tex").exists()


def test_wheels_are_asked_for_with_the_python_of_the_release_and_kept(build, tmp_path):
    lock = tmp_path / "lock.txt"
    lock.write_text("idna --hash=sha256:00\n")
    build.wheels = ["idna-3.10-py3-none-any.whl"]
    manifest, _difference = build(locks=[Lock(lock, "12", "jupyterhub")])
    (wheel,) = manifest.of("wheel")
    assert (wheel.path, wheel.release) == ("wheels/debian12/idna-3.10-py3-none-any.whl", "12")
    assert (wheel.source, wheel.needed_by) == ("PyPI", ("jupyterhub",))
    (argv,) = build.pip
    assert {"--python-version=3.11.2", "--require-hashes", "--only-binary=:all:", "--no-deps"} <= set(argv)
    assert "--platform=manylinux_2_36_x86_64" in argv
    assert "--platform=manylinux_2_37_x86_64" not in argv, "Debian 12 has glibc 2.36"
    build(locks=[Lock(lock, "12", "jupyterhub")])
    assert len(build.pip) == 1


def test_a_directory_of_wheels_that_pip_did_not_finish_is_not_used(build, tmp_path):
    lock = tmp_path / "lock.txt"
    lock.write_text("idna --hash=sha256:00\n")
    build.wheels = None
    with pytest.raises(HpcError, match="pip can't fetch"):
        build(locks=[Lock(lock, "12")])
    build.wheels = ["idna-3.10-py3-none-any.whl"]
    assert build(locks=[Lock(lock, "12")])[0].of("wheel")
