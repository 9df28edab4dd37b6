"""Makes clusters ill, and says whether the doctor's first line names the illness.

python -m tests.doctor                  every situation, then 20 looks at a healthy cluster
python -m tests.doctor hangs window     some of them
"""

import argparse
import sys
import time

from tests.doctor.situations import ALL, healthy
from zstreamer.doctor import examine

LOOKS = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=", ".join(ALL))
    parser.add_argument("--looks", type=int, default=LOOKS, help="at a healthy cluster")
    arguments = parser.parse_args()
    wrong = 0
    for name in arguments.names or ALL:
        if name == "healthy":  # comes last
            continue
        begun = time.monotonic()
        with ALL[name]() as case:
            report = examine(case.address, **case.look)
        first = report.findings[0] if report.findings else None
        right = first is not None and first.code == case.code
        wrong += not right
        line = str(report).splitlines()[0]
        took = time.monotonic() - begun
        print(f"{'ok   ' if right else 'WRONG'} {name:16} {took:4.1f} s  {line}", flush=True)
        if not right:
            print(report, flush=True)
    if not arguments.names or "healthy" in arguments.names:
        with healthy() as case:
            alarms = [r for _ in range(arguments.looks) if not (r := examine(case.address)).healthy]
        wrong += len(alarms)
        print(f"{len(alarms)} false alarms in {arguments.looks} looks at a healthy cluster")
        for each in alarms:
            print(each)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
