# SPDX-License-Identifier: Apache-2.0
"""standsstill.py FILE - when this machine stood still, as a process sees it that only sleeps, 5 ms at a time

FILE gets a line for each time it came back 20 ms late or more: when it should have, and when it did, in monotonic microseconds.
"""
import sys
import time

NAP_S = 0.005
LATE_US = 20000

with open(sys.argv[1], "w", buffering=1, encoding="ascii") as f:
    due = time.monotonic()
    while True:
        due += NAP_S
        time.sleep(NAP_S)
        now = time.monotonic()
        if (now - due) * 1e6 >= LATE_US:
            f.write("%d %d\n" % (due * 1e6, now * 1e6))
        due = now
