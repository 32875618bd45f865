# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle with a file of every kind, made by the builder and by gpg: whatever is done to a file is noticed."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle import build as builder
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle import signature
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.copy import Copy
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.fetch import Download, fetch_all, opener
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import (
    KINDS,
    MANIFEST,
    PUBLIC_KEY,
    SIGNATURE,
    File,
    Manifest,
    Target,
    check_tree,
    parse,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.tree import digest, scan
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput

pytest.importorskip("cyclonedx")
pytestmark = pytest.mark.skipif(not shutil.which("gpg"), reason="gpg signs bundles")

NOW = datetime.datetime(2026, 11, 22, 16, tzinfo=datetime.timezone.utc)
FILES = {
    "deb": "apt/pool/bookworm/less_590-2.1_amd64.deb",
    "wheel": "wheels/debian12/a-1.0-py3-none-any.whl",
    "npm": "npm/proxy-1.0.tgz",
    "image": "images/mini_1.tar",
    "chart": "charts/hub-1.0.tgz",
    "collection": "collections/turnkey-hpc-0.1.0.tar.gz",
    "controller": "controller/b-1.0-py3-none-any.whl",
    "file": "files/k3s/v1/k3s",
}


def run(argv, stdin=None):
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """Build a bundle with one file of each kind that is given; the builder adds the others."""
    top = tmp_path_factory.mktemp("bundle")
    directory, key = top / "bundle", top / "key"
    for kind, path in FILES.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(f"this is the {kind}\n")
    files = []
    for kind, path in FILES.items():
        release = "12" if kind in ("deb", "wheel") else ""
        place = directory / path
        files.append(
            File(path, place.stat().st_size, digest(place), kind, kind, "1", release=release, reference="mini:1")
            if kind != "deb"
            else File(path, place.stat().st_size, digest(place), kind, kind, "1", release="12", architecture="amd64")
        )
    target = Target("12", "amd64")
    made = builder.Builder(run, directory, key, top / "cache", now=lambda: NOW)
    made._seal(Manifest("lab", "", (target,), tuple(files)), {target: ([], "")})
    return directory, key


@pytest.fixture
def bundle(sealed, tmp_path):
    """Return a copy of the bundle, and the fingerprint of its key."""
    directory, key = sealed
    shutil.copytree(directory, tmp_path / "bundle")
    return tmp_path / "bundle", signature.fingerprint_of(key)


def problems(directory: Path, fingerprint: str) -> list[str]:
    """Verify a bundle as the module does, and return what is wrong."""
    try:
        signature.verify(run, directory / MANIFEST, directory / SIGNATURE, directory / PUBLIC_KEY, fingerprint)
        manifest = parse((directory / MANIFEST).read_text(), "manifest.json")
    except HpcError as error:
        return [str(error)]
    return check_tree(manifest, scan(directory, {file.path: file.size for file in manifest.files}))


def of_kind(directory: Path, kind: str) -> Path:
    manifest = parse((directory / MANIFEST).read_text(), "manifest.json")
    return directory / manifest.of(kind)[0].path


def test_the_bundle_has_a_file_of_every_kind(bundle):
    manifest = parse((bundle[0] / MANIFEST).read_text(), "manifest.json")
    assert {file.kind for file in manifest.files} == set(KINDS)


def test_a_bundle_as_it_was_built_is_accepted(bundle):
    assert problems(*bundle) == []


def flip(path: Path) -> str:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return "was altered"


def cut(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:-1])
    return "is cut off"


def grow(path: Path) -> str:
    path.write_bytes(path.read_bytes() + b"\n")
    return "was altered"


def drop(path: Path) -> str:
    path.unlink()
    return "is missing"


def link(path: Path) -> str:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)
    return "is a link"


def link_out(path: Path) -> str:
    path.unlink()
    path.symlink_to("/etc/passwd")
    return "is a link"


def pipe(path: Path) -> str:
    path.unlink()
    os.mkfifo(path)
    return "is no ordinary file"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", [flip, cut, grow, drop, link, link_out, pipe])
def test_whatever_is_done_to_a_file_is_noticed(bundle, kind, harm):
    path = of_kind(bundle[0], kind)
    expected = harm(path)
    found = problems(*bundle)
    assert any(f"{path.relative_to(bundle[0])} {expected}" in one for one in found), found


@pytest.mark.parametrize("kind", KINDS)
def test_two_files_that_change_places_are_noticed(bundle, kind):
    one, other = of_kind(bundle[0], kind), of_kind(bundle[0], "npm" if kind != "npm" else "chart")
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    found = problems(*bundle)
    assert len(found) == 2
    assert all("was altered" in text or "is cut off" in text for text in found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_not_listed_is_noticed_wherever_it_is(bundle, kind):
    extra = of_kind(bundle[0], kind).with_name("more_1.0_amd64.deb")
    extra.write_text("more")
    assert problems(*bundle) == [f"{extra.relative_to(bundle[0])} is not in the manifest"]


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE, PUBLIC_KEY])
@pytest.mark.parametrize("harm", [flip, drop, link_out])
def test_a_bundle_whose_signature_does_not_hold_is_refused_before_anything_is_read(bundle, name, harm):
    harm(bundle[0] / name)
    assert len(problems(*bundle)) == 1


def test_a_bundle_that_somebody_else_signed_is_refused(bundle, tmp_path):
    stranger = tmp_path / "stranger"
    signature.make_key(run, stranger, "other")
    with signature.signer(run, stranger) as signer:
        (bundle[0] / SIGNATURE).write_text(signer.detached((bundle[0] / MANIFEST).read_text()))
        (bundle[0] / PUBLIC_KEY).write_text(signer.public())
    (found,) = problems(*bundle)
    assert "was signed by the key" in found
    assert bundle[1] in found


def test_the_secret_key_is_readable_for_its_owner_only(sealed):
    assert (sealed[1] / "key.asc").stat().st_mode & 0o777 == 0o600
    assert sealed[1].stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_brings_what_is_wrong_and_removes_what_is_too_much(bundle, sealed, kind, tmp_path):
    directory, original = bundle[0], sealed[0]
    copy = Copy(directory, (original / MANIFEST).read_text())
    path = of_kind(directory, kind)
    flip(path)
    (directory / "files" / "more").write_text("more")
    missing, extra = copy.look()
    assert [file.path for file in missing] == [str(path.relative_to(directory))]
    assert extra == ["files/more"]
    pack(original, missing, tmp_path / "a.tar")
    copy.unpack(tmp_path / "a.tar")
    copy.finish(extra)
    assert copy.look() == ([], [])
    assert copy.current()


def pack(directory, files, archive):
    subprocess.run(["tar", "-C", directory, "-cf", archive, *(file.path for file in files)], check=True)


def test_a_file_that_is_altered_on_its_way_is_not_taken(bundle, sealed, tmp_path):
    copy = Copy(tmp_path / "copy", (sealed[0] / MANIFEST).read_text())
    flip(of_kind(bundle[0], "file"))
    missing = [file for file in copy.look()[0] if file.kind == "file"]
    pack(bundle[0], missing, tmp_path / "a.tar")
    with pytest.raises(HpcError, match="was altered on its way"):
        copy.unpack(tmp_path / "a.tar")
    assert not of_kind_in(copy, "file").exists()


def of_kind_in(copy: Copy, kind: str) -> Path:
    return copy.directory / copy.manifest.of(kind)[0].path


def test_a_directory_with_other_things_in_it_is_never_taken_for_a_copy(sealed, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidInput, match=r"thesis\.tex"):
        Copy(tmp_path / "home", (sealed[0] / MANIFEST).read_text()).look()


def test_a_download_without_a_source_fails_with_its_name_and_the_others_come(tmp_path):
    (tmp_path / "there").write_text("x")
    wanted = [
        Download(str(tmp_path / "there"), tmp_path / "out" / "a"),
        Download(str(tmp_path / "nowhere"), tmp_path / "out" / "b"),
    ]
    with pytest.raises(HpcError, match="nowhere"):
        fetch_all(wanted, opener({}), lambda text: None)
    assert (tmp_path / "out" / "a").read_text() == "x"
