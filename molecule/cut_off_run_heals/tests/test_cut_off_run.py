# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import os
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


@pytest.mark.parametrize("task", ["TASK [turnkey.hpc.ssh_mesh", "TASK [turnkey.hpc.openmpi"])
def test_a_run_killed_in_the_middle_is_healed_by_running_again(site, task):
    site.play("reset").succeeded()
    kill_when_output_has(site, task)
    site.play("site").succeeded()
    site.play("verify").succeeded()
