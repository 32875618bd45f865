# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm import controller
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.changes import Change
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.controller import Controller, trial_text, try_daemon

CONF = """# comment
ClusterName=lab
SlurmctldHost=head(10.0.0.1)
SlurmctldHost=second
AuthType=auth/munge
AccountingStorageType=accounting_storage/slurmdbd
JobCompType=jobcomp/filetxt
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmctldPrimaryOnProg=/usr/local/sbin/page-me
StateSaveLocation=/var/lib/slurm/slurmctld
SelectType=select/cons_tres
NodeName=n[1-2] CPUs=4
NodeName=n[3-16] CPUs=4 State=FUTURE
PartitionName=main Nodes=n[1-2]
"""
NODES = "NodeName=n1 Arch=x86_64 State=IDLE\nNodeName=n2 State=FUTURE\n"


class Machine:
    """Answers commands by their first words, and remembers what was asked."""

    def __init__(self, **answers):
        self.answers, self.calls = {key.replace("_", " "): value for key, value in answers.items()}, []

    def run(self, argv, _stdin=None):
        self.calls.append(" ".join(argv))
        for words, answer in self.answers.items():
            if " ".join(argv).startswith(words):
                return answer
        return (0, "Slurmctld(primary) at head is UP", "") if "ping" in argv else (0, "", "")

    def done(self):
        return [call for call in self.calls if not call.startswith(("scontrol ping", "scontrol --future", "squeue"))]


def put(step, machine, release="22.05", commands=(), names=("n1", "n2")):
    change = Change(step=step, commands=list(commands))
    return Controller(machine.run).put_into_force(change, lambda: names, release)


def test_a_trial_reaches_nothing_outside() -> None:
    assert trial_text(CONF, "/run/x", "head").splitlines() == [
        "# comment",
        "ClusterName=lab",
        "SelectType=select/cons_tres",
        "NodeName=n[1-2] CPUs=4 State=FUTURE",
        "NodeName=n[3-16] CPUs=4 State=FUTURE",
        "PartitionName=main Nodes=n[1-2]",
        "SlurmctldHost=head(127.0.0.1)",
        "AuthType=auth/none",
        "CredType=cred/none",
        "SlurmctldPidFile=/run/x/slurmctld.pid",
        "StateSaveLocation=/run/x/state",
    ]


@pytest.mark.parametrize(
    ("program", "ready", "last"),
    [
        ("import signal; print('info: READY', flush=True); signal.pause()", True, "info: READY"),
        ("print('fatal: no'); raise SystemExit(1)", False, "fatal: no"),
        ("import signal; print('slow', flush=True); signal.pause()", False, "not ready after 1 s"),
    ],
)
def test_a_daemon_is_tried_until_it_is_ready_ends_or_takes_too_long(program, ready, last) -> None:
    found, said = try_daemon([sys.executable, "-c", program], "READY", 1)
    assert found is ready
    assert said[-1] == last


def test_a_refused_configuration_is_told_in_the_words_of_the_daemon(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(controller.tempfile, "mkdtemp", lambda **_more: str(tmp_path / "trial"))
    seen = {}

    def trial(argv, _ready, _seconds):
        where = Path(argv[-1].split("-f ")[1]).parent
        seen.update({path.name: path.read_text() for path in where.iterdir() if path.is_file()})
        return False, [
            "slurmctld: error: Could not open node state file /x: No such file",
            f"slurmctld: error: Parse error in file {where}/slurm.conf line 3",
            "slurmctld: fatal: Unable to process configuration file",
        ]

    (tmp_path / "trial").mkdir()
    with pytest.raises(HpcError) as caught:
        Controller(Machine().run, trial=trial).check({"slurm.conf": CONF, "cgroup.conf": "x\n"})
    assert caught.value.what.splitlines()[1:] == [
        "slurmctld: error: Parse error in file /etc/slurm/slurm.conf line 3",
        "slurmctld: fatal: Unable to process configuration file",
    ]
    assert seen["cgroup.conf"] == "x\n"
    assert "StateSaveLocation=" in seen["slurm.conf"]
    assert not (tmp_path / "trial").exists()


def test_the_installed_release_counts_more_than_the_announced_one() -> None:
    assert Controller(Machine(slurmctld=(0, "slurm-wlm 24.11.5", "")).run).release("22.05") == "24.11"
    missing = Machine(slurmctld=(127, "", "slurmctld: not found"))
    assert Controller(missing.run).release("22.05") == "22.05"
    with pytest.raises(HpcError, match="isn't installed"):
        Controller(missing.run).release(None)


def test_an_update_runs_its_commands_and_nothing_else() -> None:
    machine = Machine()
    assert put("update", machine, commands=[["scontrol", "update", "PartitionName=p", "Nodes=n1"]]) == "update"
    assert machine.calls == ["scontrol update PartitionName=p Nodes=n1"]


def test_nothing_to_do_asks_nobody() -> None:
    machine = Machine()
    assert put("none", machine) == "none"
    assert machine.calls == []


def test_a_reconfiguration_that_would_kill_the_old_slurmctld_becomes_a_restart() -> None:
    machine = Machine(**{"scontrol --future": (0, "NodeName=n1 State=IDLE\n", "")})
    assert put("reconfigure", machine, "22.05") == "restart"
    assert machine.done()[0] == "systemctl restart slurmctld.service"
    assert machine.done()[-1] == "scontrol reconfigure", "the nodes are told of their new files"
    machine = Machine(**{"scontrol --future": (0, NODES, "")})
    assert put("reconfigure", machine, "22.05") == "reconfigure"
    assert machine.done() == ["scontrol reconfigure"]


def test_where_daemons_hand_over_a_failed_reconfiguration_leaves_the_old_one_running() -> None:
    machine = Machine(scontrol_reconfigure=(1, "", "slurm_reconfigure error: Invalid argument"))
    with pytest.raises(HpcError, match="Invalid argument"):
        put("reconfigure", machine, "24.11")
    assert not any("restart" in call for call in machine.calls)


def test_the_old_slurmctld_is_restarted_after_a_reconfiguration_that_failed() -> None:
    machine = Machine(**{"scontrol --future": (0, NODES, "")})
    refusals = iter([(1, "", "Zero bytes"), (0, "", "")])

    def run(argv, stdin=None):
        return next(refusals) if argv[1:] == ["reconfigure"] else machine.run(argv, stdin)

    change = Change(step="reconfigure")
    assert Controller(run).put_into_force(change, lambda: ["n1", "n2"], "22.05") == "restart"
    assert machine.done()[0] == "systemctl restart slurmctld.service"


def test_a_daemon_that_does_not_come_back_is_an_error_with_its_journal() -> None:
    machine = Machine(
        **{"systemctl is-active": (3, "", ""), "journalctl": (0, "fatal: no\n", ""), "scontrol ping": (1, "DOWN", "")}
    )
    with pytest.raises(HpcError, match="fatal: no"):
        put("restart", machine)


def test_a_node_with_jobs_can_not_leave() -> None:
    machine = Machine(squeue=(0, "12\n9\n12\n", ""))
    with pytest.raises(HpcError, match=r"n\[3-4\] can't leave yet: jobs 9, 12 run there"):
        Controller(machine.run).refuse_to_lose_jobs(Change(leaving=["n3", "n4"]))
    Controller(Machine(squeue=(0, "", "")).run).refuse_to_lose_jobs(Change(leaving=["n3"]))


def test_what_is_in_force_decides_what_is_needed(tmp_path) -> None:
    here = Controller(Machine().run, str(tmp_path))
    old, new = {"slurm.conf": CONF}, {"slurm.conf": CONF.replace("cons_tres", "linear")}
    assert here.change(new, old, "24.11").reasons == ["the first run"]
    here.save("in_force", {"release": "24.11", "files": old})
    assert here.change(old, old, "24.11").step == "none"
    assert here.change(new, old, "24.11").step == "reconfigure"


def test_a_run_that_was_cut_off_between_writing_and_applying_is_completed(tmp_path) -> None:
    here = Controller(Machine().run, str(tmp_path))
    old, new = {"slurm.conf": CONF}, {"slurm.conf": CONF.replace("cons_tres", "linear")}
    here.save("in_force", {"files": old})
    assert here.change(new, new, "24.11").step == "reconfigure"


def test_files_that_others_wrote_make_a_restart(tmp_path) -> None:
    here = Controller(Machine().run, str(tmp_path))
    here.save("in_force", {"files": {"slurm.conf": CONF}})
    assert here.change({"slurm.conf": CONF}, {"slurm.conf": CONF + "# by hand\n"}, "24.11").step == "restart"


def test_records_go_when_there_is_nothing_to_record(tmp_path) -> None:
    here = Controller(Machine().run, str(tmp_path))
    here.save("hardware", {"nodes": [{"nodes": "n1", "cpus": 2}]})
    path = tmp_path / "var/lib/turnkey/slurm/hardware.json"
    assert json.loads(path.read_text()) == here.record("hardware")
    here.save("hardware", {})
    assert not (tmp_path / "var/lib/turnkey").exists()


def test_the_names_of_all_nodes_are_read_from_the_file() -> None:
    assert Controller.node_names(CONF) == [f"n{number}" for number in range(1, 17)]
