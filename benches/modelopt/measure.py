"""Runs one command and prints what it and all its descendants took, as one line of JSON on standard output.

usage: measure.py COMMAND...    (the command's own output goes to standard error)
`cpu_s` is user plus system time, `peak_mib` the largest resident set of any one process. qlaunch's worker leads a
session of its own and outlives its parent's wait, so this process adopts orphans and waits for them as well.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36


def main():
    adopted = ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if adopted != 0:
        sys.exit("error: the kernel refuses to hand over orphans (prctl), so their time would be lost")
    begun = time.perf_counter()
    status = subprocess.Popen(sys.argv[1:], stdout=sys.stderr).wait()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({
        "status": status,
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
        "wall_s": round(time.perf_counter() - begun, 3),
        "peak_mib": usage.ru_maxrss // 1024,
    }))


if __name__ == "__main__":
    main()
