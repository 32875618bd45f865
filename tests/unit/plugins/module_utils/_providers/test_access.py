# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.access import (
    Access,
    render_known_hosts,
    render_ssh_config,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import Machine


def machine(name, address, **more):
    return Machine(name, f"id-{name}", address, "s", (), True, "root", host_key=f"ssh-ed25519 {name}", **more)


MACHINES = [
    machine("head", "10.0.0.10", bastion=True, public_address="127.0.0.1", public_port=2222),
    machine("node1", "10.0.0.11"),
]


def fake_keygen(argv):
    """Make files as ssh-keygen does."""
    path = argv[argv.index("-f") + 1]
    if "-y" in argv:
        return 0, "ssh-ed25519 DERIVED turnkey-operator@demo\n", ""
    comment = argv[argv.index("-C") + 1]
    for name, text in ((path, "PRIVATE"), (f"{path}.pub", f"ssh-ed25519 MADE {comment}\n")):
        with open(name, "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(text)
    return 0, "", ""


def access(folder):
    return Access(str(folder / "secrets" / "access"), "demo", fake_keygen)


def test_known_hosts_has_a_line_a_machine_under_its_name():
    assert render_known_hosts(MACHINES) == "head ssh-ed25519 head\nnode1 ssh-ed25519 node1\n"


def test_the_bastion_is_reached_directly_and_the_others_through_it():
    blocks = render_ssh_config(MACHINES, "/x", "/x/key").split("\n\n")
    assert "HostName 127.0.0.1\n    Port 2222\n    HostKeyAlias head" in blocks[1]
    assert "ProxyJump" not in blocks[1]
    assert blocks[2].splitlines()[:3] == ["Host node1 10.0.0.11", "    HostName 10.0.0.11", "    ProxyJump head"]


def test_host_keys_are_checked_against_our_file_only(tmp_path):
    folder = tmp_path / "with space 100%"
    folder.mkdir()
    (folder / "config").write_text(render_ssh_config(MACHINES, str(folder), str(folder / "key")))
    out = subprocess.run(
        ["ssh", "-F", str(folder / "config"), "-G", "node1"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    # whether -G resolves the escapes of percent signs depends on option and version
    assert f"userknownhostsfile {folder}/known_hosts" in [line.replace("%%", "%") for line in out]
    for line in ("stricthostkeychecking true", "globalknownhostsfile /dev/null", "identitiesonly yes"):
        assert line in out
    assert {"hostkeyalias node1", "user root", "proxyjump head", "updatehostkeys false"} <= set(out)


def test_without_a_key_of_ours_ssh_chooses_the_key():
    assert "Identit" not in render_ssh_config(MACHINES, "/x", None)


def test_everything_is_private_and_a_second_time_changes_nothing(tmp_path):
    place = access(tmp_path)
    assert place.public_key() == ""
    key = place.make_key()
    assert key == "ssh-ed25519 MADE turnkey-operator@demo"
    assert place.make_key() == key
    place.apply(place.changes(MACHINES, own_key=True))
    assert place.changes(MACHINES, own_key=True) == []
    assert place.directory.stat().st_mode & 0o777 == 0o700
    assert place.directory.parent.stat().st_mode & 0o777 == 0o700
    assert (place.directory / "ssh_config").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in place.directory.iterdir()) == [
        "known_hosts",
        "operator_ed25519",
        "operator_ed25519.pub",
        "ssh_config",
    ]


def test_looking_writes_nothing(tmp_path):
    place = access(tmp_path)
    assert len(place.changes(MACHINES, own_key=True)) == 2
    assert place.removals() == []
    assert list(tmp_path.iterdir()) == []


def test_removal_leaves_nothing_of_ours_and_all_that_is_foreign(tmp_path):
    place = access(tmp_path)
    place.make_key()
    place.apply(place.changes(MACHINES, own_key=True))
    (place.directory / ".turnkey-left-by-a-crash").write_text("x")
    assert [change.before for change in place.removals() if change.path.endswith("operator_ed25519")] == ["(private)\n"]
    place.apply(place.removals())
    assert not place.directory.exists()

    place.make_key()
    (place.directory / "operator_ed25519.pub").write_text("ssh-ed25519 AAAA me@home\n")
    (place.directory / "notes").write_text("mine")
    place.apply(place.changes(MACHINES, own_key=True))
    place.apply(place.removals())
    assert sorted(path.name for path in place.directory.iterdir()) == [
        "notes",
        "operator_ed25519",
        "operator_ed25519.pub",
    ]


def test_a_lost_public_half_is_derived(tmp_path):
    place = access(tmp_path)
    place.make_key()
    (place.directory / "operator_ed25519.pub").unlink()
    assert place.public_key() == "ssh-ed25519 DERIVED turnkey-operator@demo"


def test_a_missing_ssh_keygen_is_one_clear_message(tmp_path):
    def absent(_argv):
        raise FileNotFoundError("ssh-keygen")

    with pytest.raises(HpcError, match="Install the OpenSSH client"):
        Access(str(tmp_path / "a"), "demo", absent).make_key()
