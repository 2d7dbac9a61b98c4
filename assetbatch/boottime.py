"""The clock by which a right that was granted for a time runs out: it goes on while a laptop sleeps."""

from __future__ import annotations

import time
from functools import partial

boot_time = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Return seconds of CLOCK_BOOTTIME: monotonic, and they also pass while the machine sleeps or is paused."""
