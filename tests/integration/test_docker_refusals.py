# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has no right to Docker gets one clear message before anything changes: the real programs, as the user nobody."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
NOBODY = 65534
# What tools/docker-engine calls before it knows that there is no engine.
TOOLS = ("id", "mount", "setpriv", "sh", "unshare")
# A view of the machine without the directory of the daemons.
WITHOUT_DAEMONS = [
    *("unshare", "--mount", "sh", "-c"),
    f'mount -t tmpfs none /usr/sbin && exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups "$@"',
    "sh",
]
# root that has to respect the modes of files.
WITHOUT_POWER = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


@pytest.fixture(autouse=True)
def _root():
    if os.geteuid() != 0:
        pytest.fail("only root can run programs as another user: run these tests as root, as CI does")


def run(argv: list[str | Path], home: Path, environment: dict[str, str], user: int | None = None) -> tuple[int, str]:
    """Run a program in ``home``; return its exit code and all that it printed."""
    done = subprocess.run(
        argv,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        cwd=home,
        env={"HOME": str(home), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def home():
    """A directory that nobody can work in; pytest's are out of reach for other users."""
    path = Path(tempfile.mkdtemp(prefix="turnkey-nobody-", dir="/tmp"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def path_without_docker(home):
    directory = home / "bin"
    directory.mkdir()
    for tool in TOOLS:
        (directory / tool).symlink_to(str(shutil.which(tool)))
    return str(directory)


@pytest.fixture
def foreign_socket(home):
    """A socket that only nobody may use."""
    path = home / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o600)
        os.chown(path, NOBODY, NOBODY)
        yield f"unix://{path}"


def test_without_docker_and_without_root_the_remedy_is_named(home, path_without_docker):
    code, printed = run([*WITHOUT_DAEMONS, TOP / "tools/docker-engine"], home, {"PATH": path_without_docker})
    assert code == 1
    assert "no Docker engine on this machine, and user 'nobody' can't install one" in printed
    assert "Remedy: run this as root" in printed


def test_without_the_right_to_use_docker_the_remedy_is_named(home):
    code, printed = run([TOP / "tools/docker-engine"], home, {}, NOBODY)
    assert code == 1
    assert "the Docker engine refuses user 'nobody'" in printed
    assert "Remedy: join the group docker" in printed


def provision(home: Path, engine: str) -> str:
    """Return what provision.yml says, run without root's power over others' files. It must fail and write nothing."""
    site = home / "site"
    shutil.copytree(TOP / "inventories/demo", site, ignore=shutil.ignore_patterns(".secrets", "verify.json"))
    before = sorted(site.rglob("*"))
    code, printed = run(
        [*WITHOUT_POWER, TOP / ".venv/bin/ansible-playbook", "-i", site, TOP / "playbooks/provision.yml"],
        home,
        {"ANSIBLE_CONFIG": str(TOP / "ansible.cfg"), "DOCKER_HOST": engine},
    )
    assert code != 0, printed
    assert sorted(site.rglob("*")) == before
    return printed


def test_provisioning_without_the_right_to_use_docker_changes_nothing(home, foreign_socket):
    printed = provision(home, foreign_socket)
    assert f"has no right to use the Docker engine at {foreign_socket}" in printed
    assert "Run as root, or add the user to the group of that socket" in printed


def test_provisioning_without_a_running_engine_changes_nothing(home):
    printed = provision(home, f"unix://{home}/none.sock")
    assert f"The Docker engine is not running: nothing answers at unix://{home}/none.sock" in printed
    assert "Start it (systemctl start docker)" in printed
