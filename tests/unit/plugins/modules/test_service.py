# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import service


def run(capsys, **arguments):
    with patch_module_args(arguments), pytest.raises(SystemExit):
        service.main()
    return json.loads(capsys.readouterr().out)


def test_check_mode_says_that_a_service_which_is_not_installed_yet_would_be_started(capsys):
    result = run(capsys, name="turnkey-none.service", _ansible_check_mode=True)
    assert (result["changed"], result["actions"]) == (
        True,
        ["enable turnkey-none.service", "start turnkey-none.service"],
    )


def test_all_services_that_do_not_exist_are_named_at_once(capsys):
    units = [{"name": "turnkey-none.service"}, {"name": "turnkey-nothing.service"}]
    message = run(capsys, units=units)["msg"]
    assert "'turnkey-none.service'" in message
    assert "'turnkey-nothing.service'" in message


def test_a_service_that_does_not_exist_is_one_clear_message(capsys):
    result = run(capsys, name="turnkey-none.service")
    assert result["msg"].startswith("There is no service 'turnkey-none.service'. Remedy: ")


def test_a_service_that_does_not_exist_is_already_absent(capsys):
    assert run(capsys, name="turnkey-none.service", state="absent")["actions"] == []
