# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import sys

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.client import (
    PowerHost,
    PowerHostError,
    join,
    ssh_options,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.decide import Machine
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError


def host(tmp_path, code):
    """A power host behind a program that stands for ssh; its last argument is the request."""
    program = tmp_path / "ssh"
    program.write_text(f"import sys\nrequest = sys.argv[-1]\n{code}\n", encoding="utf-8")
    return PowerHost("power", "/etc/key", (sys.executable, str(program)))


def test_answers_are_read_line_by_line(tmp_path):
    one = host(tmp_path, 'print(\'{"node": "n1", "asked": "\' + request + \'"}\')\nprint(\'{"node": "n2"}\')')
    assert list(one.resume(["n1", "n2"])) == [{"node": "n1", "asked": "resume n[1-2]"}, {"node": "n2"}]


def test_machines_that_exist_are_told_by_name(tmp_path):
    assert host(tmp_path, 'print(\'{"machines": {"n1": "running"}}\')').status() == {"n1": Machine.RUNNING}


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("sys.stderr.write('Connection refused'); sys.exit(255)", "HostUnreachable"),
        ("sys.stderr.write('refused'); sys.exit(3)", "HostRefused"),
        ('print(\'{"error": {"code": "Quota", "text": "too many"}}\')', "Quota"),
    ],
)
def test_a_host_that_cannot_help_says_why_in_a_code(tmp_path, code, wanted):
    with pytest.raises(PowerHostError) as error:
        list(host(tmp_path, code).suspend(["n1"]))
    assert error.value.code == wanted


def test_noise_is_no_answer(tmp_path):
    with pytest.raises(HpcError, match="no answer of node-power"):
        list(host(tmp_path, "print('Welcome to Debian')").resume(["n1"]))


def test_ssh_asks_nothing_and_trusts_only_keys_that_are_known():
    options = " ".join(ssh_options("/k", "/known"))
    assert "BatchMode=yes" in options
    assert "StrictHostKeyChecking=yes" in options
    assert "UserKnownHostsFile=/known" in options


def test_a_machine_is_handed_the_program_and_the_payload_and_its_last_words_are_the_reason(tmp_path, monkeypatch):
    fake = tmp_path / "ssh"
    fake.write_text(
        f"#!/bin/sh\ncat >{tmp_path}/got\nif grep -q bad {tmp_path}/got; then echo broken >&2; exit 1; fi\n",
        encoding="ascii",
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = tmp_path / "node-power"
    program.write_bytes(b"PROGRAM")
    arguments = ("10.0.0.1", "n1", "root", "/key", tmp_path / "known")
    assert join(*arguments, b"good", 20, program) is None
    assert (tmp_path / "got").read_bytes() == b"7\nPROGRAMgood"
    failure = join(*arguments, b"bad", 20, program)
    assert (failure.code, failure.text) == ("JoinFailed", "broken")
