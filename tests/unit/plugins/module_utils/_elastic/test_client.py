# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess
import sys
import zlib

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.client import (
    PowerHost,
    PowerHostError,
    certificate,
    join,
    leave,
    ssh_options,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.decide import Machine
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.member import plain_run
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
    length, _newline, rest = (tmp_path / "got").read_bytes().partition(b"\n")
    assert zlib.decompress(rest[: int(length)]) == b"PROGRAM"
    assert rest[int(length) :] == b"good"
    failure = join(*arguments, b"bad", 20, program)
    assert (failure.code, failure.text) == ("JoinFailed", "broken")


def test_the_key_of_a_new_machine_is_signed_for_its_names_and_no_other(tmp_path):
    for name in ("controller", "machine"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    host_key = (tmp_path / "machine.pub").read_text(encoding="ascii").strip()
    names = ("n1", "n1.lab.internal", "10.0.0.100")
    signed = tmp_path / "signed"
    signed.write_text(certificate(plain_run, tmp_path / "controller", names, host_key, tmp_path), encoding="ascii")
    shown = subprocess.run(["ssh-keygen", "-L", "-f", signed], check=True, capture_output=True, text=True).stdout
    assert "host certificate" in shown
    principals = shown.partition("Principals:")[2].partition("Critical")[0].split()
    assert principals == list(names)


def test_a_key_that_is_none_is_not_signed(tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "controller"], check=True)
    with pytest.raises(HpcError, match="n1 could not be signed"):
        certificate(plain_run, tmp_path / "controller", ("n1",), "no key", tmp_path)


def test_a_daemon_that_does_not_stop_is_told(tmp_path):
    with pytest.raises(HpcError, match="slurmd of n1 could not be stopped: no such unit"):
        leave(lambda _argv, _stdin=None: (5, "", "no such unit"), "10.0.0.1", "n1", "root", "/key", tmp_path / "known")


@pytest.mark.parametrize(("user", "command"), [("root", "systemctl stop"), ("admin", "sudo -n systemctl stop")])
def test_whoever_logs_in_to_a_node_becomes_root_there_and_is_nobody_elsewhere(tmp_path, user, command):
    asked = []
    leave(
        lambda argv, _stdin=None: asked.append(argv) or (0, "", ""), "10.0.0.1", "n1", user, "/key", tmp_path / "known"
    )
    (argv,) = asked
    assert argv[-1] == f"{command} slurmd.service"
    assert argv[-4:-1] == ["-o", "HostKeyAlias=n1", f"{user}@10.0.0.1"]
    # Neither the system's settings for ssh nor its known hosts are those of machines that were just made.
    assert argv[1:3] == ["-F", "none"]
    assert f"UserKnownHostsFile={tmp_path}/known" in argv
    assert "-F" not in ssh_options("/key")
