# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.apt import (
    Deb,
    Resolver,
    packages_index,
    parse_uris,
    pool_path,
    release_file,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import Target
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError

# Recorded from apt 2.6.1.
URIS = """\
'http://deb.debian.org/debian/pool/main/g/gcc-12/gcc-12-base_12.2.0-14%2bdeb12u1_amd64.deb' gcc-12-base_12.2.0-14+deb12u1_amd64.deb 37596 SHA256:1896a2aacf4ad681ff5eacc24a5b0ca4d5d9c9b9c9e4b6de5197bc1e116ea619
'http://deb.debian.org/debian/pool/main/v/vim/vim-common_9.0.1378-2_all.deb' vim-common_2%3a9.0.1378-2_all.deb 124800 SHA256:ba4f88f73dbc3ae9055f3c20f4523bfdbaf1ad13ff95e258924f77d20b4fbedf
"""  # noqa: E501
STANZAS = """\
Package: vim-common
Version: 2:9.0.1378-2
Architecture: all
Filename: pool/main/v/vim/vim-common_9.0.1378-2_all.deb
Size: 124800
MD5sum: 0123
SHA256: ba4f88f73dbc3ae9055f3c20f4523bfdbaf1ad13ff95e258924f77d20b4fbedf
Description: Vi IMproved - Common files

Package: vim-common
Version: 2:9.0.1378-1
Architecture: all
Filename: pool/main/v/vim/vim-common_9.0.1378-1_all.deb
SHA256: 00
"""
VIM = "ba4f88f73dbc3ae9055f3c20f4523bfdbaf1ad13ff95e258924f77d20b4fbedf"


def test_the_packages_that_apt_would_fetch_are_read_with_their_epochs():
    base, vim = parse_uris(URIS)
    assert (base.name, base.version, base.architecture, base.size) == (
        "gcc-12-base",
        "12.2.0-14+deb12u1",
        "amd64",
        37596,
    )
    assert (vim.version, vim.architecture, vim.sha256) == ("2:9.0.1378-2", "all", VIM)
    assert pool_path(vim, "bookworm") == "apt/pool/bookworm/vim-common_9.0.1378-2_all.deb"


def test_the_package_list_has_the_version_of_the_bundle_at_its_path_there():
    vim = parse_uris(URIS)[1]
    assert packages_index([vim], STANZAS, "bookworm").splitlines() == [
        "Package: vim-common",
        "Version: 2:9.0.1378-2",
        "Architecture: all",
        "Filename: pool/bookworm/vim-common_9.0.1378-2_all.deb",
        "Size: 124800",
        f"SHA256: {VIM}",
        "Description: Vi IMproved - Common files",
        "",
    ]


def test_the_release_file_has_size_and_digest_of_each_list():
    text = release_file("bookworm", ["amd64"], "Sun, 22 Nov 2026 16:00:00 UTC", {"main/binary-amd64/Packages": b"x"})
    assert "Codename: bookworm\n" in text
    assert " 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 1 main/binary-amd64/Packages\n" in text


def test_a_package_whose_name_has_odd_characters_keeps_them():
    assert (
        pool_path(Deb("g++", "4:12.2.0-3", "amd64", "", 1, ""), "bookworm")
        == "apt/pool/bookworm/g++_12.2.0-3_amd64.deb"
    )


def resolver(folder, answer=(0, "", ""), keyring="none"):
    """Return APT for Debian 12, where each program gives ``answer``, and what it was asked."""
    asked = []

    def run(argv, _stdin):
        asked.append([argv[0], *argv[3:]])
        return answer

    sources = ["http://mirror/debian {codename} main"]
    return Resolver(run, folder, Target("12", "amd64"), sources, folder / keyring), asked


def test_a_source_is_checked_with_the_keys_of_debian_where_the_control_node_has_them(tmp_path):
    (tmp_path / "debian.gpg").write_bytes(b"key")
    for keyring, signed in (("none", ""), ("debian.gpg", f" signed-by={tmp_path}/debian.gpg")):
        resolver(tmp_path, keyring=keyring)
        assert (
            tmp_path / "sources.list"
        ).read_text() == f"deb [arch=amd64{signed}] http://mirror/debian bookworm main\n"


def test_apt_is_asked_once_for_all_packages_and_not_at_all_for_none(tmp_path):
    apt, asked = resolver(tmp_path, (0, URIS, ""))
    assert apt.closure([]) == []
    assert [deb.name for deb in apt.closure(["vim", "gcc", "vim"])] == ["gcc-12-base", "vim-common"]
    assert asked == [["apt-get", "install", "--quiet=2", "--print-uris", "gcc", "vim"]]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            (100, "", "E: Unable to locate package wim\n"),
            "Debian 12 amd64 has no package called wim.*check the spelling",
        ),
        ((100, "", "E: Unmet dependencies\n"), "APT can't resolve wim for Debian 12 amd64: E: Unmet dependencies"),
        ((127, "", "not found"), "There is no program apt-get on the control node.*build the bundle on Debian"),
    ],
)
def test_packages_that_cannot_be_resolved_are_one_clear_message(tmp_path, answer, message):
    with pytest.raises(HpcError, match=message):
        resolver(tmp_path, answer)[0].closure(["wim"])


@pytest.mark.parametrize(
    "answer", [(100, "", "E: no network"), (0, "", "Ign:1\nW: Failed to fetch http://mirror/debian: refused\n")]
)
def test_package_lists_that_did_not_come_are_an_error_even_where_apt_only_warns(tmp_path, answer):
    with pytest.raises(HpcError, match="package lists of Debian 12 amd64 can't be fetched"):
        resolver(tmp_path, answer)[0].update()


def test_package_lists_that_came_are_none(tmp_path):
    apt, asked = resolver(tmp_path, (0, "", "W: something else\n"))
    apt.update()
    assert asked == [["apt-get", "update", "--quiet"]]


def test_what_the_lists_say_of_a_package_that_is_in_none_is_an_error(tmp_path):
    vim = parse_uris(URIS)[1]
    assert resolver(tmp_path, (0, STANZAS, ""))[0].stanzas([vim]) == STANZAS
    with pytest.raises(HpcError, match="E: No packages found"):
        resolver(tmp_path, (100, "", "E: No packages found"))[0].stanzas([vim])
