# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.apt import (
    Deb,
    packages_index,
    parse_uris,
    pool_path,
    release_file,
)

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
