# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that a test orders: what a cloud does to those who trust every call."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum


class Fault(Enum):
    """What happens to one call."""

    THROTTLED = "throttled"  # refused, nothing done
    UNAVAILABLE = "unavailable"  # 503, nothing done
    DROPPED = "dropped"  # connection closed, nothing done
    LOST_REPLY = "lost reply"  # done, connection closed
    FAILED_REPLY = "failed reply"  # done, answered with 500
    NO_STOCK = "no stock"  # RunInstances: nothing done
    PARTIAL = "partial"  # RunInstances: fewer than asked, if MinAmount allows


ANYWHERE = (Fault.THROTTLED, Fault.UNAVAILABLE, Fault.DROPPED, Fault.LOST_REPLY, Fault.FAILED_REPLY)
AT_RUN = (*ANYWHERE, Fault.NO_STOCK, Fault.PARTIAL)


@dataclass
class Faults:
    """A schedule: each call suffers with probability ``rate``, decided by seed, action and number of the call.

    At most ``in_a_row`` calls of one action suffer one after the other, so that patience leads somewhere.
    ``lag`` is how many calls long a new or changed thing may stay invisible. ``killer`` is called after the
    ``kill_after``th call was done and before it is answered.
    """

    seed: int = 0
    rate: float = 0.0
    in_a_row: int = 3
    lag: int = 0
    kinds: tuple[Fault, ...] = ()
    kill_after: int = 0
    killer: Callable[[], None] | None = None
    calls: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    _seen: Counter[str] = field(default_factory=Counter)
    _row: Counter[str] = field(default_factory=Counter)

    def next(self, action: str) -> Fault | None:
        """Return what the next call of this action suffers."""
        self.calls += 1
        self._seen[action] += 1
        dice = random.Random(f"{self.seed}/{action}/{self._seen[action]}")
        if not self.rate or dice.random() >= self.rate or self._row[action] >= self.in_a_row:
            self._row[action] = 0
            return None
        choice = [
            kind for kind in (AT_RUN if action == "RunInstances" else ANYWHERE) if not self.kinds or kind in self.kinds
        ]
        if not choice:
            return None
        self._row[action] += 1
        fault = dice.choice(choice)
        self.struck[fault.value] += 1
        return fault

    def delay(self, what: str) -> int:
        """Return how long a new thing stays invisible, in calls."""
        return random.Random(f"{self.seed}/{what}").randint(0, self.lag) if self.lag else 0

    def time_to_die(self) -> bool:
        """Tell whether this call is the last one that is answered to nobody."""
        return bool(self.kill_after) and self.calls == self.kill_after
