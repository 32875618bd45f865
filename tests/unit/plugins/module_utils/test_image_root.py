# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._image_root import clean, leftovers, units_to_disable

KEY = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nxyz\n"


@pytest.fixture
def root(tmp_path):
    files = {
        "etc/machine-id": "0123456789abcdef\n",
        "etc/ssh/ssh_host_ed25519_key": KEY,
        "etc/munge/munge.key": "of the package\n",
        "etc/ssh/sshd_config": "Include x\n",
        "etc/shadow": "root:*:1::::::\nalice:*:1::::::\n",
        "root/.ssh/authorized_keys": "ssh-ed25519 AAAA\n",
        "home/admin/.ssh/authorized_keys": "ssh-ed25519 AAAA\n",
        "var/lib/cloud/instance/user-data.txt": "#cloud-config\n",
        "etc/netplan/50-cloud-init.yaml": "network: {}\n",
        "var/lib/apt/lists/deb_dists": "x\n",
        "var/lib/turnkey/packages.json": "{}\n",
        "var/log/apt/history.log": "x\n",
        "var/log/journal/0123456789abcdef/system.journal": "x\n",
        "tmp/left": "x\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def test_what_identifies_a_machine_or_was_left_by_the_build_is_removed(root):
    removed = clean(root)
    assert "/etc/ssh/ssh_host_ed25519_key" in removed
    assert "/etc/munge/munge.key" in removed
    assert (root / "etc/machine-id").read_text() == ""
    assert (root / "etc/ssh/sshd_config").exists()
    assert (root / "var/log/apt").is_dir(), "services expect their log directories"
    assert not list((root / "var/log").rglob("*.log"))
    assert (root / "var/log/journal").is_dir()
    assert not list((root / "var/log/journal").iterdir()), "they are called as the machine's id"
    assert not (root / "var/lib/turnkey").exists()
    assert not (root / "var/lib/cloud/instance").exists(), "the next machine's first boot is its own"
    assert not (root / "etc/netplan/50-cloud-init.yaml").exists(), "it has the network card of the build machine"
    assert leftovers(root, lambda: "") == []


def test_a_clean_root_is_not_changed(root):
    clean(root)
    assert clean(root) == []


@pytest.mark.parametrize(
    ("path", "content", "problem"),
    [
        ("etc/ssl/private/host.pem", KEY, "/etc/ssl/private/host.pem holds a private key"),
        ("opt/app/keys.json", json.dumps({"key": KEY}), "/opt/app/keys.json holds a private key"),
        ("etc/munge/munge.key", "x", "/etc/munge/munge.key must not be in an image"),
        ("root/.ssh/id_rsa.pub", "x", "/root/.ssh/id_rsa.pub must not be in an image"),
        ("etc/shadow", "eve:$y$abc:1::::::\n", "account eve has a password"),
        ("etc/machine-id", "abc\n", "/etc/machine-id is not empty"),
    ],
)
def test_a_secret_in_the_image_is_named(root, path, content, problem):
    clean(root)
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).chmod(0o644) if (root / path).exists() else None
    (root / path).write_text(content)
    assert any(line.startswith(problem) for line in leftovers(root, lambda: ""))


def test_a_package_that_is_not_whole_is_a_problem(root):
    clean(root)
    assert leftovers(root, lambda: "The following packages are only half configured\n foo") == [
        "packages are not whole: The following packages are only half configured"
    ]


def test_only_units_that_the_packages_enabled_are_disabled():
    assert units_to_disable(["ssh.service", "b.service", "a.service"], ["ssh.service"]) == ["a.service", "b.service"]


def test_a_program_that_reads_private_keys_is_no_secret(root):
    clean(root)
    (root / "opt/app").mkdir(parents=True)
    (root / "opt/app/ssh.py").write_text(f"START = {KEY.splitlines()[0]!r}\nEND = 'x'\n")
    assert not leftovers(root, lambda: "")
