"""Who cleans up when the gateway is killed? `python reaper.py SCRATCH`

A process of its own that reads `+PGID` and `-PGID` lines from its standard input. When that closes,
the gateway is gone, however it went: every group that is still listed gets SIGKILL, and the folder
SCRATCH is removed. It imports next to nothing, because it lives as long as the service.
"""

import os
import shutil
import signal
import sys


def main() -> None:
    """Keep the list until the pipe closes, then kill what is on it."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change, group = line[0], int(line[1:])
        if change == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
