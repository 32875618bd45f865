# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the stand-in as a program."""

from __future__ import annotations

import argparse
import json

from . import ACCESS_KEY_ID, ACCESS_KEY_SECRET, Clock, Faults, StandIn


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A stand-in for Alibaba Cloud's ECS and VPC services, for tests.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--seed", type=int, default=0, help="seed of the faults")
    parser.add_argument("--fault-rate", type=float, default=0.0, help="share of calls that suffer a fault, 0 to 1")
    parser.add_argument("--speed", type=float, default=1.0, help="seconds of the clouds's time in a second of ours")
    options = parser.parse_args()
    standin = StandIn(options.port, faults=Faults(options.seed, options.fault_rate), clock=Clock(0, options.speed))
    ready = {"port": standin.port, "access_key_id": ACCESS_KEY_ID, "access_key_secret": ACCESS_KEY_SECRET}
    print(json.dumps(ready), flush=True)
    standin.serve_forever()


if __name__ == "__main__":
    main()
