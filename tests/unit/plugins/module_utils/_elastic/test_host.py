# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.host import (
    Refused,
    Request,
    answers,
    code_for,
    parse_request,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import AddressInUse, Capacity

ALLOWED = {f"burst{number}": None for number in range(1, 5)}


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("status", Request("status")),
        ("resume burst1", Request("resume", ("burst1",))),
        ("suspend burst[1-2,4]", Request("suspend", ("burst1", "burst2", "burst4"))),
        ("resume burst2,burst2", Request("resume", ("burst2",))),
    ],
)
def test_what_may_be_asked_is_understood(text, request_):
    assert parse_request(text, ALLOWED) == request_


@pytest.mark.parametrize(
    "text",
    [
        "",
        "status ",
        "status; id",
        "status\nid",
        "STATUS",
        "destroy burst1",
        "resume",
        "resume ",
        "resume burst1 burst2",
        "resume burst1;id",
        "resume burst1\n",
        "resume $(id)",
        "resume `id`",
        "resume ../../etc/passwd",
        "resume --help",
        "resume burst1 --force",
        "resume head",
        "resume burst5",
        "resume burst[1-5]",
        "resume burst[1-999999999]",
        "resume burst[4-1]",
        "resume burst[[1]]",
        "resume burst[1",
        "resume ,",
        "resume burst1,",
        "resume b\u00fcrst1",
        "resume burst1\x00",
        "resume " + "burst1," * 20000 + "burst1",
        "scp -t /etc",
        "/usr/lib/openssh/sftp-server",
        "bash -i",
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(Refused):
        parse_request(text, ALLOWED)


class Machines:
    def status(self):
        return {"burst1": "running"}

    def resume(self, names):
        yield {"node": names[0], "address": "10.0.0.1"}
        raise Capacity("no room")

    def suspend(self, names):
        yield from ({"node": name} for name in names[:1])


def test_answers_come_one_by_one_and_an_error_is_the_last():
    found = answers(Request("resume", ("burst1", "burst2")), Machines(), lambda *_a, **_k: None)
    assert next(found) == {"node": "burst1", "address": "10.0.0.1"}
    assert next(found) == {"error": {"code": "Capacity", "text": "no room"}}


def test_every_node_has_an_answer():
    found = list(answers(Request("suspend", ("burst1", "burst2")), Machines(), lambda *_a, **_k: None))
    assert [answer["node"] for answer in found] == ["burst1", "burst2"]
    assert found[1]["code"] == "Failed"


def test_codes_are_those_of_the_nearest_class_that_users_know():
    assert code_for(AddressInUse("x")) == "AddressInUse"
    assert code_for(HpcError("x")) == "Failed"
