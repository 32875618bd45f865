# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle import signature
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import MANIFEST, PUBLIC_KEY, SIGNATURE
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput


@pytest.fixture
def verify(run):
    def call(directory, fingerprint):
        signature.verify(run, directory / MANIFEST, directory / SIGNATURE, directory / PUBLIC_KEY, fingerprint)

    return call


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def drop(path):
    path.unlink()


def link_out(path):
    path.unlink()
    path.symlink_to("/etc/passwd")


def test_what_the_key_signed_is_accepted(bundle, verify):
    verify(*bundle)


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE, PUBLIC_KEY])
@pytest.mark.parametrize("harm", [flip, drop, link_out])
def test_a_signature_that_does_not_hold_is_refused(bundle, verify, name, harm):
    harm(bundle[0] / name)
    with pytest.raises(InvalidInput):
        verify(*bundle)


def test_what_somebody_else_signed_is_refused_with_both_fingerprints(bundle, verify, run, tmp_path):
    stranger = tmp_path / "stranger"
    other = signature.make_key(run, stranger, "other")
    with signature.signer(run, stranger) as signer:
        (bundle[0] / SIGNATURE).write_text(signer.detached((bundle[0] / MANIFEST).read_text()))
        (bundle[0] / PUBLIC_KEY).write_text(signer.public())
    with pytest.raises(InvalidInput, match=f"was signed by the key {other}, not by {bundle[1]}"):
        verify(*bundle)


def test_the_secret_key_is_readable_for_its_owner_only_and_is_made_once(sealed, run):
    key = sealed[1]
    assert (key / "key.asc").stat().st_mode & 0o777 == 0o600
    assert key.stat().st_mode & 0o777 == 0o700
    assert signature.make_key(run, key, "lab") == signature.fingerprint_of(key)


def test_without_gpg_the_remedy_names_its_package(tmp_path):
    with pytest.raises(HpcError, match="apt-get install gpg"):
        signature.make_key(lambda argv, stdin=None: (127, "", ""), tmp_path / "key", "lab")


@pytest.mark.parametrize("text", ["", "abc", "G" * 40])
def test_a_fingerprint_has_40_digits(text):
    with pytest.raises(InvalidInput, match="is no fingerprint"):
        signature.normal_fingerprint(text)


def test_a_fingerprint_may_be_written_in_groups():
    assert signature.normal_fingerprint("7a4c 0b7d " * 5) == "7A4C0B7D" * 5
