# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import k3s_service

QUORUM_LOST = "Without s1 etcd would lose its quorum"


class Fake(k3s_service.Host):
    """A host with a service that somebody else has made up."""

    state = k3s_service.Host(lambda *_: (0, "", "")).unit("agent")
    running = ""
    lost = ""

    def unit(self, part):
        return type(self).state

    def records(self):
        return {"running": type(self).running}

    def refuse_stop(self, name, seconds):
        return type(self).lost

    def act(self, part, verbs):
        type(self).acted += verbs

    def wait(self, *_args):
        type(self).acted.append("wait")

    def note(self, **values):
        type(self).running = values["running"]


@pytest.fixture
def fake(monkeypatch):
    made = type("Made", (Fake,), {"acted": []})
    monkeypatch.setattr(k3s_service, "Host", made)
    return made


def unit(**values):
    return type(Fake.state)(**{"exists": True, "enabled": True, "active": "active", **values})


def run(capsys, **arguments):
    with (
        patch_module_args({"part": "server", "name": "s1", "version": "v1.34.2+k3s1", **arguments}),
        pytest.raises(SystemExit),
    ):
        k3s_service.main()
    return json.loads(capsys.readouterr().out)


def test_it_is_restarted_once_for_a_change_and_then_left_alone(capsys, fake, tmp_path):
    fake.state = unit()
    (tmp_path / "config.yaml").write_text("a: 1")
    config = [str(tmp_path / "config.yaml")]
    assert run(capsys, config=config)["actions"] == ["daemon-reload", "restart"]
    assert not run(capsys, config=config)["changed"]
    (tmp_path / "config.yaml").write_text("a: 2")
    assert run(capsys, config=config)["changed"]
    assert fake.acted == ["daemon-reload", "restart", "wait", "wait", "daemon-reload", "restart", "wait"]


def test_a_server_that_etcd_needs_is_not_restarted(capsys, fake):
    fake.state, fake.lost = unit(), QUORUM_LOST
    assert QUORUM_LOST in run(capsys)["msg"]
    assert fake.acted == []


def test_a_server_that_is_down_is_started_whoever_else_is(capsys, fake):
    fake.state, fake.lost = unit(active="failed"), QUORUM_LOST
    assert run(capsys)["actions"] == ["daemon-reload", "start"]


def test_a_host_without_the_service_is_told_so_and_in_check_mode_what_would_be_done(capsys, fake):
    fake.state = unit(exists=False, enabled=False, active="inactive")
    assert "There is no service of k3s (server)" in run(capsys)["msg"]
    assert run(capsys, _ansible_check_mode=True)["actions"] == ["daemon-reload", "enable", "start"]
    assert fake.acted == []


def test_what_somebody_else_has_installed_is_not_taken_off(capsys, monkeypatch):
    monkeypatch.setattr(k3s_service.Host, "records", lambda self: {})
    monkeypatch.setattr(k3s_service.Host, "act", lambda *_: pytest.fail("it touched the service"))
    assert not run(capsys, state="absent")["changed"]


@pytest.mark.parametrize(
    ("there", "actions"),
    [
        (unit(active="inactive"), ["start"]),
        (unit(), []),
        (unit(exists=False, active="inactive"), []),
        (unit(enabled=False, active="inactive"), []),
    ],
)
def test_only_what_was_stopped_is_woken_and_not_waited_for(capsys, fake, there, actions):
    fake.state = there
    assert run(capsys, state="awake")["actions"] == actions
    assert fake.acted == actions
