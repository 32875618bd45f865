# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import os
import re
import signal
import subprocess

import pytest


def kill_when_output_has(site, text):
    """Start site.yml, and kill it with all its children as soon as it prints ``text``."""
    process = subprocess.Popen(
        site.command("site"),
        env=site.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return
    pytest.fail(f"the run never printed {text!r}:\n{''.join(seen)}")


# Each test begins where the one before it ended: from a configured cluster to one that was reset, and back.


def test_a_half_installed_cluster_is_reset_to_what_it_was(site):
    site.play("reset").succeeded()
    before = site.picture("node1")
    kill_when_output_has(site, "TASK [turnkey.hpc.openmpi")
    assert site.picture("node1") != before
    site.play("reset").succeeded()
    assert {line for line in site.picture("node1") ^ before if "/home/" not in line} == set()


def test_a_run_killed_in_the_middle_is_healed_by_running_again(site):
    kill_when_output_has(site, "TASK [turnkey.hpc.ssh_mesh : configure | Give keys")
    site.play("site").succeeded()
    site.play("verify").succeeded()


def test_a_reset_leaves_out_a_dead_node_and_names_it_and_the_next_may_wipe_its_data(site):
    on_console = ["docker", "exec", "molecule-node3", "sh", "-c"]
    subprocess.run([*on_console, "systemctl stop ssh; pkill sshd"], check=True)
    try:
        run = site.play("reset")
        assert run.code == 4, run.output
        assert re.search(r"^node3 .* unreachable=1", run.output, re.M), run.output
        assert run.changed["node2"]
        assert not site.root("node2").file("/etc/ssh/turnkey").exists
    finally:
        subprocess.run([*on_console, "systemctl start ssh"], check=True)

    # The node that was left out is reset by the next run; this one is told to take the data as well.
    assert site.root("node3").file("/home/bob").is_directory
    site.play("reset", "-e", "reset_wipe_data=true", "-e", "reset_confirm=molecule").succeeded()
    assert not site.root("node3").file("/etc/ssh/turnkey").exists
    assert not site.root("node3").file("/home/bob").exists


def test_data_is_not_wiped_without_the_name_of_the_cluster(site):
    run = site.play("reset", "-e", "reset_wipe_data=true")
    assert run.code == 2
    assert "add -e reset_confirm=molecule" in run.output
    assert not any(run.changed.values())
