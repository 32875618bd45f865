# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import functools
import hashlib
import io
import json
import subprocess
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.build import (
    Builder,
    GivenFile,
    GivenImage,
    Lock,
    Release,
    Wishes,
    check_files,
    image_path,
    load,
    look_into_image,
    wheel_index,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import File, Target
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.tree import digest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.release import find_artifacts


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
            return 0, f"'file://{package}' less_590-2.1_amd64.deb 9 SHA256:{sha256}\n" if "less" in argv else "", ""
        if argv[0] == "apt-cache":
            return 0, STANZA, ""
        if argv[0] == "skopeo" and call.image:
            if "copy" in argv:
                write_oci(argv[-1].removeprefix("oci-archive:"), *call.image)
            return 0, str(call.image), ""
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

    def call(check_mode=False, architecture="amd64", **more):
        target = Target("12", architecture)
        wishes = Wishes("lab", {target: [{"baseline": ["less"] if architecture == "amd64" else []}]}, SOURCES, **more)
        places = (tmp_path / name for name in ("bundle", "key", "cache"))
        return Builder(recorded, *places, pause=lambda seconds: None).build(wishes, check_mode)

    call.directory, call.key = tmp_path / "bundle", tmp_path / "key"
    call.pip, call.wheels, call.image = [], [], []
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


VERSION = "v1.34.2+k3s1"


def write_release(place, architecture="amd64", images=".tar.zst"):
    """Write a release as its makers publish it; return the digest of its list of sums."""
    place.mkdir(parents=True)
    program = {"amd64": "k3s", "arm64": "k3s-arm64"}[architecture]
    lines = []
    for name in (program, f"k3s-airgap-images-{architecture}{images}"):
        (place / name).write_text(f"this is {name}")
        lines.append(f"{digest(place / name)}  {name}\n")
    (place / f"sha256sum-{architecture}.txt").write_text("".join(lines))
    return digest(place / f"sha256sum-{architecture}.txt")


@pytest.fixture
def served(tmp_path):
    """Serve a directory on the loopback; return it and its address."""
    directory = tmp_path / "served"
    directory.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield directory, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(("architecture", "program"), [("amd64", "k3s"), ("arm64", "k3s-arm64")])
def test_a_release_of_k3s_is_taken_whole_and_only_as_its_list_of_sums_says(
    build, served, remote, architecture, program
):
    directory, address = served
    sums = write_release(directory / VERSION, architecture)
    source = address if remote else str(directory)
    releases = [Release(VERSION, source, architecture, sums)]
    manifest, _difference = build(architecture=architecture, releases=releases)
    names = {program, f"k3s-airgap-images-{architecture}.tar.zst", f"sha256sum-{architecture}.txt"}
    assert {file.path for file in manifest.of("file")} == {f"files/k3s/{VERSION}/{name}" for name in names}
    assert {(file.name, file.version, file.architecture) for file in manifest.of("file")} == {
        ("k3s", VERSION, architecture)
    }
    assert find_artifacts(str(build.directory / f"files/k3s/{VERSION}"), architecture)

    (directory / VERSION / program).write_text("another program")
    for path in build.directory.glob(f"files/k3s/*/{program}"):
        path.unlink()
    with pytest.raises(HpcError, match="sha256"):
        build(architecture=architecture, releases=releases)


def test_a_release_from_an_address_needs_the_digest_of_its_list_of_sums(build, served):
    directory, address = served
    write_release(directory / VERSION)
    with pytest.raises(InvalidInput, match="mirror_k3s_sums_sha256"):
        build(releases=[Release(VERSION, address)])
    with pytest.raises(HpcError, match="sha256"):
        build(releases=[Release(VERSION, address, "amd64", "a" * 64)])


def test_a_wheel_that_two_roles_need_is_in_the_bundle_once(build, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text("idna --hash=sha256:00\n")
    build.wheels = ["idna-3.10-py3-none-any.whl"]
    manifest, _difference = build(locks=[Lock(tmp_path / name, "12", name) for name in ("one", "two")])
    (wheel,) = manifest.of("wheel")
    assert wheel.needed_by == ("one", "two")


def write_oci(path, *architectures):
    """Write an OCI archive with an image, for several architectures if several are named; return its digest."""
    blobs = {}

    def add(data):
        content = json.dumps(data).encode()
        name = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{name}"] = content
        return {"digest": f"sha256:{name}"}

    manifests = [add({"config": add({"architecture": one}), "layers": []}) for one in architectures]
    top = manifests[0] if len(manifests) == 1 else add({"manifests": manifests})
    blobs["index.json"] = json.dumps({"manifests": [top]}).encode()
    with tarfile.open(path, "w") as archive:
        for name, content in blobs.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return top["digest"]


def test_the_digest_and_the_architectures_of_an_image_are_read_from_its_archive(tmp_path):
    for architectures in (["amd64"], ["amd64", "arm64"]):
        name = write_oci(tmp_path / "image.tar", *architectures)
        assert look_into_image(tmp_path / "image.tar") == (name, set(architectures))
    (tmp_path / "image.tar").write_text("no archive")
    with pytest.raises(HpcError, match="no OCI archive"):
        look_into_image(tmp_path / "image.tar")


def test_an_image_for_other_machines_than_the_hosts_is_refused(build):
    build.image = ["amd64"]
    wanted = [GivenImage("example.org/mini:1")]
    (file,) = build(images=wanted)[0].of("image")
    assert file.architecture == "amd64"
    build.image = ["arm64"]
    with pytest.raises(InvalidInput, match=r"example\.org/mini:1 is for arm64, and the hosts are amd64"):
        build(images=wanted)


def test_the_collection_itself_is_in_the_bundle(build, tmp_path):
    root = tmp_path / "installed"
    root.mkdir()
    about = {"collection_info": {"namespace": "some", "name": "thing", "version": "1.0.0-rc.1"}}
    (root / "MANIFEST.json").write_text(json.dumps(about))
    (root / "FILES.json").write_text('{"files": []}')
    (file,) = build(collections=[root])[0].of("collection")
    assert (file.path, file.name, file.version) == (
        "collections/some-thing-1.0.0-rc.1.tar.gz",
        "some.thing",
        "1.0.0-rc.1",
    )


def test_the_secret_half_of_the_key_is_beside_the_bundle_and_not_in_it(build):
    build()
    assert not [path for path in build.directory.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    (secret,) = [path for path in build.key.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert (secret.stat().st_mode & 0o777, build.key.stat().st_mode & 0o777) == (0o600, 0o700)
