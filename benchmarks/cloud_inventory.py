#!/usr/bin/env python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what listing a cluster at AWS costs, beside the collection amazon.aws.

    benchmarks/cloud_inventory.py [HOSTS]

A server on this machine answers DescribeInstances with HOSTS instances (default: 10000), in pages, with what EC2 says
of one; it answers nothing else. `ansible-inventory --list` runs once with `amazon.aws.aws_ec2` (groups from the same
tags), with `turnkey.hpc.cloud` without a cache, and with a warm one, for which the server must not be asked. Prints a
Markdown table; the exit status is 1 if ours needs more than a tenth of the CPU of the other, or more than 120 MB.
"""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import parse_qs

LIMIT_RATIO = 0.1
LIMIT_MB = 120
HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?><DescribeInstancesResponse '
    'xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>0</requestId><reservationSet>'
)
TAGS = {
    "Name": "big-node{n}",
    "turnkey:cluster": "big",
    "turnkey:role": "machine",
    "turnkey:name": "node{n}",
    "turnkey:set": "node",
    "turnkey:groups": "compute",
    "turnkey:image": "turnkey-node-debian12-*",
    "turnkey:subnet": "private",
    "turnkey:spec": "0123456789abcdef",
    "turnkey:host-key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0UMHxFnQTFghS+U1IJIeeLMXh7cUzIWQyHxeqsS8tc",
}
SCALARS = (
    "<instanceId>i-{n:017x}</instanceId><imageId>ami-0123456789abcdef0</imageId><instanceState><code>16</code><name>running"
    "</name></instanceState><privateDnsName>ip-10-0-{a}-{b}.eu-central-1.compute.internal</privateDnsName><dnsName/>"
    "<reason/><keyName>turnkey-big</keyName><amiLaunchIndex>0</amiLaunchIndex><productCodes/><instanceType>c7i.xlarge"
    "</instanceType><launchTime>2026-11-22T09:00:00.000Z</launchTime><placement><availabilityZone>eu-central-1a"
    "</availabilityZone><groupName/><tenancy>default</tenancy></placement><monitoring><state>disabled</state></monitoring>"
    "<subnetId>subnet-0123456789abcdef0</subnetId><vpcId>vpc-0123456789abcdef0</vpcId><privateIpAddress>10.{c}.{a}.{b}"
    "</privateIpAddress><sourceDestCheck>true</sourceDestCheck><groupSet><item><groupId>sg-0123456789abcdef0</groupId>"
    "<groupName>turnkey-big-cluster</groupName></item></groupSet><architecture>x86_64</architecture><rootDeviceType>ebs"
    "</rootDeviceType><rootDeviceName>/dev/xvda</rootDeviceName><blockDeviceMapping><item><deviceName>/dev/xvda</deviceName>"
    "<ebs><volumeId>vol-{n:017x}</volumeId><status>attached</status><attachTime>2026-11-22T09:00:01.000Z</attachTime>"
    "<deleteOnTermination>true</deleteOnTermination></ebs></item></blockDeviceMapping><virtualizationType>hvm"
    "</virtualizationType><clientToken>0123456789abcdef0123456789abcdef</clientToken><hypervisor>xen</hypervisor>"
    "<networkInterfaceSet><item><networkInterfaceId>eni-{n:017x}</networkInterfaceId><subnetId>subnet-0123456789abcdef0"
    "</subnetId><vpcId>vpc-0123456789abcdef0</vpcId><description/><ownerId>123456789012</ownerId><status>in-use</status>"
    "<macAddress>02:00:00:00:00:01</macAddress><privateIpAddress>10.{c}.{a}.{b}</privateIpAddress><sourceDestCheck>true"
    "</sourceDestCheck><groupSet><item><groupId>sg-0123456789abcdef0</groupId><groupName>turnkey-big-cluster</groupName>"
    "</item></groupSet><attachment><attachmentId>eni-attach-{n:017x}</attachmentId><deviceIndex>0</deviceIndex><status>"
    "attached</status><attachTime>2026-11-22T09:00:00.000Z</attachTime><deleteOnTermination>true</deleteOnTermination>"
    "</attachment><privateIpAddressesSet><item><privateIpAddress>10.{c}.{a}.{b}</privateIpAddress><primary>true</primary>"
    "</item></privateIpAddressesSet></item></networkInterfaceSet><ebsOptimized>true</ebsOptimized><enaSupport>true"
    "</enaSupport><cpuOptions><coreCount>2</coreCount><threadsPerCore>2</threadsPerCore></cpuOptions><metadataOptions>"
    "<state>applied</state><httpTokens>required</httpTokens><httpPutResponseHopLimit>2</httpPutResponseHopLimit>"
    "<httpEndpoint>enabled</httpEndpoint><httpProtocolIpv6>disabled</httpProtocolIpv6><instanceMetadataTags>disabled"
    "</instanceMetadataTags></metadataOptions><hibernationOptions><configured>false</configured></hibernationOptions>"
    "<enclaveOptions><enabled>false</enabled></enclaveOptions><bootMode>uefi-preferred</bootMode><currentInstanceBootMode>"
    "uefi</currentInstanceBootMode><platformDetails>Linux/UNIX</platformDetails><usageOperation>RunInstances"
    "</usageOperation><usageOperationUpdateTime>2026-11-22T09:00:00.000Z</usageOperationUpdateTime><privateDnsNameOptions>"
    "<hostnameType>ip-name</hostnameType><enableResourceNameDnsARecord>false</enableResourceNameDnsARecord>"
    "<enableResourceNameDnsAAAARecord>false</enableResourceNameDnsAAAARecord></privateDnsNameOptions><maintenanceOptions>"
    "<autoRecovery>default</autoRecovery><rebootMigration>default</rebootMigration></maintenanceOptions>"
    "<capacityReservationSpecification><capacityReservationPreference>open</capacityReservationPreference>"
    "</capacityReservationSpecification><networkPerformanceOptions><bandwidthWeighting>default</bandwidthWeighting>"
    "</networkPerformanceOptions><operator><managed>false</managed></operator>"
)


def page(start: int, stop: int, last: int) -> bytes:
    """Return the instances from ``start`` to before ``stop``."""
    items = []
    for n in range(start, stop):
        tags = "".join(f"<item><key>{k}</key><value>{v.format(n=n)}</value></item>" for k, v in TAGS.items())
        body = SCALARS.format(n=n, a=n >> 8 & 255, b=n & 255, c=n >> 16)
        items.append(
            f"<item><reservationId>r-{n:017x}</reservationId><ownerId>123456789012</ownerId><groupSet/><instancesSet>"
            f"<item>{body}<tagSet>{tags}</tagSet></item></instancesSet></item>"
        )
    more = f"<nextToken>{stop}</nextToken>" if stop < last else ""
    return f"{HEAD}{''.join(items)}</reservationSet>{more}</DescribeInstancesResponse>".encode()


def serve(hosts: int) -> tuple[http.server.ThreadingHTTPServer, list[str]]:
    """Start the server; return it with the list of the actions it was asked for."""
    pages: dict[tuple[int, int], bytes] = {}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        """Answers DescribeInstances."""

        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """Answer one request."""
            fields = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            asked.append(fields["Action"][0])
            start = int(fields.get("NextToken", ["0"])[0])
            stop = min(hosts, start + min(1000, int(fields.get("MaxResults", ["1000"])[0])))
            if fields["Action"][0] == "DescribeInstances":
                reply = pages.setdefault((start, stop), page(start, stop, hosts))
            else:
                reply = b"<Response><regionInfo/></Response>"
            self.send_response(200)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, asked


def measure(path: Path, plugin: str, url: str) -> tuple[float, float]:
    """Return CPU seconds and the largest size in MB of `ansible-inventory --list`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "AWS_"))}
    environment |= {
        "ANSIBLE_CONFIG": str(path.parent / "ansible.cfg"),
        "ANSIBLE_INVENTORY_ENABLED": plugin,
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        "ANSIBLE_HOME": str(path.parent / "ansible"),
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
    }
    argv = [sys.executable, "-m", "ansible", "inventory", "-i", str(path), "--list"]
    process = subprocess.Popen(argv, env=environment, cwd=path.parent, stdout=subprocess.DEVNULL)
    _pid, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(argv)} with {plugin} has failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> int:
    """Measure and print."""
    hosts = int(sys.argv[1]) if len(sys.argv) > 1 else 10000
    server, asked = serve(hosts)
    url = f"http://127.0.0.1:{server.server_port}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ansible.cfg").write_text("[defaults]\n")
        ours = "plugin: turnkey.hpc.cloud\nprovider: aws\nregion: eu-central-1\ncluster_name: big\n"
        cache = f"cache: true\ncache_plugin: ansible.builtin.jsonfile\ncache_connection: {folder}/cache\n"
        theirs = (
            "plugin: amazon.aws.aws_ec2\nregions: [eu-central-1]\nhostnames: ['tag:turnkey:name']\n"
            "filters: {'tag:turnkey:cluster': big}\ncompose: {ansible_host: private_ip_address}\n"
            "keyed_groups:\n  - key: tags['turnkey:groups']\n    separator: ''\n"
        )
        rows = [
            ("turnkey.hpc.cloud", "cold", "a.cloud.yml", ours),
            ("turnkey.hpc.cloud", "warm", "b.cloud.yml", ours + cache),
        ]
        rows += [("amazon.aws.aws_ec2", "no cache", "c.aws_ec2.yml", theirs)]
        found: list[tuple[str, str, float, float, int]] = []
        for plugin, kind, file, text in rows:
            (folder / file).write_text(text)
            if kind == "warm":
                measure(folder / file, plugin, url)
            asked.clear()
            found.append((plugin, kind, *measure(folder / file, plugin, url), len(asked)))
    server.shutdown()
    cost = found[-1][2]
    print("| plugin | cache | hosts | CPU s | ratio | MB | requests |\n| --- | --- | --- | --- | --- | --- | --- |")
    failed = False
    for plugin, kind, seconds, size, requests in found:
        print(f"| `{plugin}` | {kind} | {hosts} | {seconds:.1f} | {seconds / cost:.2f} | {size:.0f} | {requests} |")
        if plugin.startswith("turnkey"):
            failed |= seconds > LIMIT_RATIO * cost or size > LIMIT_MB or (kind == "warm" and requests > 0)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
