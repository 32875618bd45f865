# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.accounting import (
    ASSOCIATION_LIMITS,
    MAX_NAMES,
    QOS_LIMITS,
    Accounting,
    Database,
    Key,
    Wanted,
    check,
    parse,
    plan,
)

QOS = [{"name": "teaching", "limits": {"MaxTRESPerUser": {"cpu": 8, "mem": "16G"}, "Flags": ["denyonlimit"]}}]
ACCOUNTS = [
    {"name": "optics", "parent": "physics", "limits": {"GrpTRES": {"cpu": 4, "mem": "2T"}}},
    {"name": "physics", "organization": "science", "limits": {"Fairshare": 60, "GrpWall": 90}},
    {"name": "course", "limits": {"Fairshare": 10, "QOS": ["teaching"], "DefaultQOS": "teaching"}},
]
USERS = [
    {"name": "alice", "accounts": ["optics", "course"], "account_limits": {"course": {"MaxJobs": 2}}},
    {"name": "bob", "accounts": ["course"], "limits": {"MaxSubmitJobs": 20}},
    {"name": "carol", "accounts": ["course"], "limits": {"MaxSubmitJobs": 20}},
]
# Recorded with Slurm 22.05.8 and 24.11.5, which say the same.
SHOWN = {
    "cluster": "lab\n",
    "tres": "cpu|\nmem|\nenergy|\nnode|\nbilling|\nfs|disk\nvmem|\npages|\n",
    "account": "course|course|course\noptics|physics|optics\nphysics|science|all | of physics\nroot|root|default\n",
    "user": "alice|optics|None\nbob|course|None\ncarol|course|None\nroot|root|Administrator\n",
    "association": """\
|root|||||||||||||||1|||||normal
root|root|||||||||||||||1|||||
|course||root||||||||||||teaching|10|||||teaching
alice|course|||||||||||||||1|2||||
bob|course|||||||||||||||1|||20||
carol|course|||||||||||||||1|||20||
bob|course|night||||||||||||||1|7||||
|physics||root|||||||01:30:00||||||60|||||
|optics||physics||||cpu=4,mem=2T|||||||||1|||||
alice|optics|||||||||||||||1|||||
""",
}


class Sacctmgr:
    """Shows what was recorded, and notes what it is told to change."""

    def __init__(self, shown=None, failing="", silent=0):
        self.shown = {**SHOWN, "qos": self.qos(), **(shown or {})}
        self.failing, self.silent, self.calls = failing, silent, []

    @staticmethod
    def qos():
        values = {"MaxTRESPerUser": "cpu=8,mem=16G", "Flags": "DenyOnLimit"}
        defaults = {"GraceTime": "00:00:00", "PreemptMode": "cluster", "Priority": "0", "UsageFactor": "1.000000"}
        fields = [*(name for name in QOS_LIMITS if name != "Description"), "Description"]
        return "".join(
            f"{name}|" + "|".join({**defaults, **own}.get(field, "") for field in fields) + "\n"
            for name, own in (("normal", {}), ("teaching", values))
        )

    def __call__(self, argv, stdin=None):
        assert argv[0] == "sacctmgr"
        if argv[1] == "--version":
            return 0, "slurm-wlm 24.11.5\n", ""
        if argv[1] == "--immediate":
            self.calls.append(" ".join(argv[2:]))
            return (1, " Nothing modified\n", "sacctmgr: error: no\n") if self.failing in argv else (0, "", "")
        if self.silent:
            self.silent -= 1
            return 1, "", "sacctmgr: error: Sending PersistInit msg: Connection refused\n"
        return 0, self.shown[argv[4]], ""


def database(**arguments):
    ticks = iter(range(1000))
    tool = Sacctmgr(**arguments)
    return Database(tool, pause=lambda _seconds: None, clock=lambda: next(ticks)), tool


def found(**changes):
    return replace(database()[0].read("lab", (24, 11)), **changes)


def wanted(qos=None, accounts=None, users=None, purge=False):
    pairs = ((qos, QOS), (accounts, ACCOUNTS), (users, USERS))
    return Wanted("lab", parse(*(default if given is None else given for given, default in pairs)), purge)


def commands(want, have):
    return [" ".join(step.argv) for step in plan(want, have)]


def test_what_slurm_shows_of_a_declaration_is_that_declaration():
    assert commands(wanted(), found()) == []
    assert commands(wanted(purge=True), found()) == []


def test_an_empty_database_is_filled_with_a_call_for_each_group_of_equal_changes():
    assert commands(wanted(), Accounting(cluster=False)) == [
        "add cluster lab",
        "add qos teaching",
        "add account physics,course cluster=lab parent=root",
        "add account optics cluster=lab parent=physics",
        "add user bob,carol cluster=lab account=course defaultaccount=course",
        "add user alice cluster=lab account=course,optics defaultaccount=optics",
        "modify qos where name=teaching set Flags=DenyOnLimit MaxTRESPerUser=cpu=8,mem=16384M",
        "modify account where name=course cluster=lab set DefaultQOS=teaching Fairshare=10 QOS=teaching",
        "modify account where name=physics cluster=lab set Fairshare=60 GrpWall=01:30:00 Organization=science",
        "modify account where name=optics cluster=lab set GrpTRES=cpu=4,mem=2097152M",
        "modify user where name=alice account=course cluster=lab set MaxJobs=2",
        "modify user where name=bob,carol account=course cluster=lab set MaxSubmitJobs=20",
    ]


def test_a_thousand_users_more_cost_two_calls_more_and_no_command_line_is_endless():
    users = [{"name": f"u{n}", "accounts": ["course"], "limits": {"MaxJobs": 3}} for n in range(3 * MAX_NAMES)]
    calls = commands(wanted(users=users), found())
    assert len(calls) == 6
    assert max(len(call) for call in calls) < 10_000


@pytest.mark.parametrize(
    ("limits", "options"),
    [
        ({"GrpTRES": {"cpu": 8}}, "GrpTRES=cpu=8,mem=-1"),
        ({"GrpTRES": None}, "GrpTRES=cpu=-1,mem=-1"),
        ({"GrpTRES": {"cpu": 4, "mem": "2T"}, "MaxJobs": 1}, "MaxJobs=1"),
        ({"GrpTRES": {"cpu": 4, "mem": "2097152M", "fs/disk": "5K"}}, "GrpTRES=cpu=4,fs/disk=5000,mem=2097152M"),
        ({"QOS": ["teaching", "normal"]}, "QOS=normal,teaching"),
        (
            {"MaxWallDurationPerJob": "1-00:00:00", "Fairshare": "parent"},
            "Fairshare=parent MaxWallDurationPerJob=1-00:00:00",
        ),
    ],
)
def test_a_limit_is_set_so_that_slurm_has_just_what_is_declared(limits, options):
    account = {"name": "optics", "parent": "physics", "limits": limits}
    calls = commands(wanted(accounts=[account], users=[]), found())
    assert calls == [f"modify account where name=optics cluster=lab set {options}"]


def test_what_is_not_declared_stays_without_purge():
    assert commands(wanted(qos=[], accounts=[], users=[]), found()) == []


def test_purge_removes_the_rest_and_never_what_is_slurms_own():
    calls = commands(wanted(qos=[], accounts=[], users=[], purge=True), found())
    assert calls == [
        "delete user where name=alice,bob,carol",
        "delete account where name=course,optics,physics",
        "delete qos where name=teaching",
    ]


def test_purge_clears_limits_and_memberships_that_are_not_declared_and_moves_the_default_account_before():
    users = [{"name": "alice", "accounts": ["course"]}, *USERS[1:]]
    calls = commands(wanted(users=users, purge=True), found())
    assert calls == [
        "modify user where name=alice cluster=lab set DefaultAccount=course",
        "modify user where name=alice account=course cluster=lab set MaxJobs=-1",
        "delete user where name=alice account=optics cluster=lab",
    ]


def test_purge_leaves_the_access_of_the_root_account_to_qos_alone():
    root = {"name": "root", "limits": {"MaxJobs": 1000}}
    calls = commands(wanted(accounts=[*ACCOUNTS, root], purge=True), found())
    assert calls == ["modify account where name=root cluster=lab set MaxJobs=1000"]


def test_purge_takes_nothing_from_the_other_clusters_of_a_database():
    calls = commands(wanted(qos=[], accounts=[], users=[], purge=True), found(shared=True))
    assert all(call.endswith("cluster=lab") for call in calls)
    assert not any("qos" in call for call in calls)


def test_an_account_moves_below_another_one():
    accounts = [{**ACCOUNTS[0], "parent": "course"}, *ACCOUNTS[1:]]
    assert commands(wanted(accounts=accounts), found()) == [
        "modify account where name=optics cluster=lab set Parent=course"
    ]


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("MaxWallDurationPerJob", 90, "01:30:00"),
        ("MaxWallDurationPerJob", "90", "01:30:00"),
        ("MaxWallDurationPerJob", "5:30", "00:06:00"),
        ("MaxWallDurationPerJob", "2:00:00", "02:00:00"),
        ("MaxWallDurationPerJob", "2-12", "2-12:00:00"),
        ("MaxWallDurationPerJob", "36:00:00", "1-12:00:00"),
        ("GraceTime", 90, "00:01:30"),
        ("UsageFactor", 1.5, "1.5"),
        ("PreemptMode", False, "off"),
        ("Preempt", "b,a", "a,b"),
        ("GrpTRESMins", {"cpu": "2M"}, "cpu=2000000"),
        ("GrpTRES", "mem=4G,cpu=2", "cpu=2,mem=4096M"),
        ("Description", "For Courses", "for courses"),
    ],
)
def test_values_are_compared_in_the_form_in_which_slurm_shows_them(field, value, shown):
    items = parse([{"name": "q", "limits": {field: value}}], [], [])
    assert items[Key("qos", "q")][field] == shown


def test_a_grace_time_is_given_in_seconds():
    assert "modify qos where name=q set GraceTime=5400" in commands(
        wanted(qos=[{"name": "q", "limits": {"GraceTime": "01:30:00"}}], accounts=[], users=[]), found()
    )


def test_all_that_is_wrong_in_a_declaration_is_told_at_once():
    with pytest.raises(InvalidInput) as error:
        parse(
            [{"name": "q", "limits": {"MaxTRESPerUsr": {"cpu": 1}, "Flags": ["NoDelay"], "PreemptMode": "shoot"}}],
            [
                {
                    "name": "a",
                    "parent": "b",
                    "limits": {"MaxJobs": "many", "GrpTRES": 5, "MaxWallDurationPerJob": "soon"},
                },
                {"name": "b", "parent": "a", "limits": {"GrpTRES": {"cpu": "four"}}},
                {"name": "Big Group"},
            ],
            [
                {"name": "u", "accounts": []},
                {"name": "v", "accounts": ["a"], "account_limits": {"c": {}}},
                {"name": "v", "accounts": ["a"]},
            ],
        )
    text = str(error.value)
    for part in (
        "MaxTRESPerUsr of qos q is no limit that Slurm knows; did you mean MaxTRESPerUser?",
        "Flags of qos q is ['NoDelay'], and has NoDelay, which is none of",
        "PreemptMode of qos q is 'shoot', and must be one of",
        "MaxJobs of account a is 'many', and must be a whole number",
        "GrpTRES of account a is 5, and must be a dictionary of resources",
        "MaxWallDurationPerJob of account a is 'soon', and must be minutes, or a time",
        "GrpTRES of account b is {'cpu': 'four'}, and wants a whole number for cpu",
        "'Big Group' can't be the name of a account",
        "account a is below itself.",
        "user u has no account.",
        "account_limits of user v has 'c', which is none of its accounts (a).",
        "user v is declared twice.",
    ):
        assert part in text


def test_what_only_the_database_can_tell_is_found_before_anything_is_written():
    qos = [{"name": "q", "limits": {"GrpTRES": {"cpus": 1, "gres/gpu": 2}, "MaxTRESRunMinsPerUser": {"cpu": 1}}}]
    accounts = [{"name": "a", "parent": "nobody", "limits": {"QOS": ["q", "fast"]}}]
    want = wanted(qos, accounts, [{"name": "u", "accounts": ["gone"]}])
    with pytest.raises(InvalidInput) as error:
        check(want, found(), (22, 5))
    text = str(error.value)
    for part in (
        "GrpTRES of qos q names the resource 'cpus', which Slurm doesn't know; it knows billing, cpu,",
        "names the resource 'gres/gpu'",
        "MaxTRESRunMinsPerUser of qos q came with Slurm 23.11, and here is 22.05.",
        "QOS of account a names the QoS 'fast', which is neither declared nor there.",
        "account a needs the account 'nobody', which is neither declared nor there.",
        "user u in gone needs the account 'gone'",
        "AccountingStorageTRES",
    ):
        assert part in text


def test_without_slurm_on_the_host_resources_of_known_types_pass():
    check(wanted([{"name": "q", "limits": {"GrpTRES": {"gres/gpu": 2}}}], [], []), Accounting(cluster=False), None)
    with pytest.raises(InvalidInput, match="'cpus'"):
        check(wanted([{"name": "q", "limits": {"GrpTRES": {"cpus": 2}}}], [], []), Accounting(cluster=False), None)


def test_an_account_that_purge_removes_can_not_be_used():
    want = wanted(accounts=[ACCOUNTS[2]], users=[{"name": "bob", "accounts": ["physics"]}], purge=True)
    with pytest.raises(InvalidInput, match="needs the account 'physics'"):
        check(want, found(), (24, 11))


def test_inherited_limits_and_those_of_a_partition_are_not_taken_for_the_users_own():
    items = found().items
    assert items[Key("association", "alice", "optics")] == {}
    assert items[Key("association", "bob", "course")] == {"MaxSubmitJobs": "20"}
    assert items[Key("account", "physics")]["Description"] == "all | of physics"
    assert len(ASSOCIATION_LIMITS) == 18, "the recorded rows have as many fields"


def test_slurmdbd_is_waited_for_and_its_silence_is_one_clear_message():
    patient, _tool = database(silent=5)
    assert patient.answers(20)
    hasty, _tool = database(silent=5)
    assert not hasty.answers(3)
    assert "does not answer after 3 s: sacctmgr: error: Sending PersistInit" in str(hasty.silence((24, 11), 3))
    assert "There is no sacctmgr on this host." in str(hasty.silence(None, 3))


def test_a_change_that_slurm_refuses_is_an_error_with_what_it_said():
    base, tool = database(failing="where")
    want = wanted(users=[{**USERS[1], "limits": {"MaxSubmitJobs": 5}}])
    with pytest.raises(HpcError, match=r"sacctmgr modify user .* failed: sacctmgr: error: no / Nothing modified"):
        base.apply(plan(want, found()), want, (24, 11))
    assert tool.calls == ["modify user where name=bob account=course cluster=lab set MaxSubmitJobs=5"]


def test_a_change_that_slurm_did_not_take_in_silence_is_an_error():
    base, _tool = database()
    want = wanted(users=[{**USERS[1], "limits": {"MaxSubmitJobs": 5}}])
    with pytest.raises(HpcError, match="Slurm did not take: user bob in course: MaxSubmitJobs: 20 -> 5"):
        base.apply(plan(want, found()), want, (24, 11))
