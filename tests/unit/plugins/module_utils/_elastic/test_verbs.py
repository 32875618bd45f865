# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import json

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic import providers, verbs, worker
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.engine import SlurmNode
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.memory import Memory
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.settings import Settings
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.slurm_side import Scontrol
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError


def test_a_refused_request_is_told_nothing_but_that(tmp_path, monkeypatch, capsys):
    settings = tmp_path / "host.json"
    settings.write_text(json.dumps({"cluster": "lab", "kinds": []}), encoding="utf-8")
    monkeypatch.setattr(verbs, "HOST_SETTINGS", settings)
    logged = []
    monkeypatch.setattr(verbs.syslog, "syslog", lambda _level, text: logged.append(text))
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.9 1 10.0.0.1 22")
    for request in ("bash -i", "resume head", "", "status; id"):
        monkeypatch.setenv("SSH_ORIGINAL_COMMAND", request)
        assert verbs.serve([]) == 3
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", "refused\n" * 4)
    assert all(text.startswith("from=10.0.0.9 event=refused") for text in logged)


def test_settings_that_are_wrong_are_an_answer_that_the_controller_can_show(tmp_path, monkeypatch, capsys):
    settings = tmp_path / "host.json"
    settings.write_text(json.dumps({"kinds": [{"name": "burst", "provider": "vmware"}]}), encoding="utf-8")
    monkeypatch.setattr(verbs, "HOST_SETTINGS", settings)
    monkeypatch.setenv("SSH_ORIGINAL_COMMAND", "status")
    assert verbs.serve([]) == 0
    assert "vmware" in json.loads(capsys.readouterr().out)["error"]["text"]


class Machines:
    """A provider that has one machine, of a kind that is in the configuration no more."""

    def __init__(self, answers=()):
        self.answers = list(answers)

    def status(self):
        return {"old1": "running"}

    def clear(self):
        return self.answers


@pytest.fixture
def machines(tmp_path, monkeypatch):
    """Let a power host have these machines, and nodes new1 and new2 that it may make."""

    def use(found):
        settings = tmp_path / "host.json"
        settings.write_text("{}", encoding="utf-8")
        monkeypatch.setattr(verbs, "HOST_SETTINGS", settings)
        monkeypatch.setattr(providers, "machines_of", lambda _data: (found, {"new1": "new", "new2": "new"}))

    return use


@pytest.mark.parametrize(("request_text", "code"), [("suspend old1", 0), ("resume old1", 3), ("suspend new3", 3)])
def test_a_machine_whose_kind_is_gone_may_be_removed_and_not_made(machines, monkeypatch, request_text, code):
    machines(Machines())
    monkeypatch.setattr(verbs, "answers", lambda _request, _machines, _log: [])
    monkeypatch.setattr(verbs.syslog, "syslog", lambda _level, _text: None)
    monkeypatch.setenv("SSH_ORIGINAL_COMMAND", request_text)
    assert verbs.serve([]) == code


def test_a_machine_that_could_not_be_removed_is_an_error_that_names_it(machines):
    machines(Machines([{"node": "new1"}, {"node": "new2", "code": "Failed", "text": "no answer"}]))
    with pytest.raises(HpcError, match=r"new2 could not be removed: no answer"):
        verbs.clear([])
    machines(Machines([{"node": "new1"}]))
    assert verbs.clear([]) == 0


class Place:
    """A controller without memory."""

    def load(self):
        return Settings.parse({"kinds": [{"name": "burst", "nodes": "b1", "provider": "docker", "host": "p"}]})


def test_status_is_a_table_or_json_and_nothing_else(monkeypatch, capsys):
    nodes = {"b1": SlurmNode("b1", frozenset({"IDLE", "CLOUD", "POWERED_DOWN"}))}
    monkeypatch.setattr(worker, "Place", Place)
    monkeypatch.setattr(worker, "remembered", lambda _place: Memory())
    monkeypatch.setattr(Scontrol, "nodes", lambda _self: nodes)
    assert (verbs.status([]), verbs.status(["--json"])) == (0, 0)
    table, _brace, data = capsys.readouterr().out.partition("{")
    assert "1 off" in table
    assert json.loads("{" + data)
    with pytest.raises(HpcError, match=r"status takes --json or nothing, not '-x'"):
        verbs.status(["-x"])


@pytest.mark.parametrize(("known", "said"), [(True, "main is open.\n"), (False, "main is open, and was.\n")])
def test_a_partition_that_was_open_is_said_to_have_been(monkeypatch, capsys, known, said):
    class Engine:
        def reset(self, _partition):
            return known

    monkeypatch.setattr(worker, "Place", Place)
    monkeypatch.setattr(worker.Worker, "engine", lambda _self: contextlib.nullcontext(Engine()))
    assert verbs.reset(["main"]) == 0
    assert capsys.readouterr().out == said
