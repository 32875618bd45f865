# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure parts; tests/cloud/test_aws.py has the rest."""

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.aws import newest_image, read_rows, rules_of

SSH = {
    "IpProtocol": "tcp",
    "FromPort": 22,
    "ToPort": 22,
    "IpRanges": [{"CidrIp": "192.0.2.0/24", "Description": "turnkey"}, {"CidrIp": "198.51.100.0/24"}],
    "Ipv6Ranges": [{"CidrIpv6": "::/0", "Description": "mine"}],
}
INSIDE = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-1", "Description": "turnkey"}, {"GroupId": "sg-2"}]}


def test_rules_are_ours_by_their_description_and_all_others_are_foreign():
    ours, foreign = rules_of({"IpPermissions": [SSH, INSIDE]}, {"sg-1": "cluster"})
    assert ours == {"tcp 22 from 192.0.2.0/24", "all from group cluster"}
    assert foreign == {"tcp 22 from 198.51.100.0/24", "tcp 22 from ::/0", "all from group sg-2"}


def image(identity, date):
    return {"ImageId": identity, "Name": f"n-{identity}", "CreationDate": date}


def test_the_newest_image_wins():
    assert newest_image("n-*", [image("a", "2026-01-01"), image("b", "2026-02-01")])["ImageId"] == "b"


@pytest.mark.parametrize(
    ("images", "message"),
    [([], "doesn't exist in this region"), ([image("a", "1"), image("b", "1")], r"equally new: a \(n-a\), b \(n-b\)")],
)
def test_no_image_and_two_equally_new_ones_are_errors(images, message):
    with pytest.raises(HpcError, match=message):
        newest_image("n-*", images)


REPLY = b"""<?xml version="1.0"?><DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
<requestId>r</requestId><reservationSet><item><reservationId>r-1</reservationId><instancesSet><item>
<instanceId>i-1</instanceId><instanceState><code>16</code><name>running</name></instanceState>
<privateIpAddress>10.0.0.10</privateIpAddress><ipAddress>192.0.2.1</ipAddress><instanceType>t3.small</instanceType>
<stateReason><message>m</message></stateReason><tagSet>
<item><key>turnkey:role</key><value>machine</value></item><item><key>turnkey:name</key><value>head</value></item>
<item><key>turnkey:bastion</key><value>yes</value></item><item><key>turnkey:groups</key><value>a:b</value></item>
</tagSet></item><item><instanceId>i-2</instanceId><instanceState><name>running</name></instanceState></item>
</instancesSet></item></reservationSet><nextToken>more</nextToken></DescribeInstancesResponse>"""


def test_rows_are_read_and_the_rest_of_the_reply_stays():
    rows, rest = read_rows(REPLY)
    assert [
        (row.name, row.id, row.address, row.public_address, row.state, row.groups, row.bastion) for row in rows
    ] == [("head", "i-1", "10.0.0.10", "192.0.2.1", "running", ("a", "b"), True)]
    assert b"nextToken>more<" in rest
    assert b"i-1" not in rest
