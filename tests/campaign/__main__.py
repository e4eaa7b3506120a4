"""Trying to break it, many times: `python -m tests.campaign KIND --count N --seed S`.

Each case is drawn from a generator of its own, so `--seed S --first CASE --count 1` repeats one.
Ends at the first failure with exit code 1, or goes on with `--all`. See docs/reliability.md.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.campaign.lab import Failure, Laboratory

KINDS = ("kills", "damage", "flags", "hostile")


def main() -> int:
    """Run the cases; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="do not end at the first failure")
    parser.add_argument("--keep", action="store_true", help="leave the folder of a failure")
    options = parser.parse_args()
    kind = importlib.import_module(f"tests.campaign.{options.kind}")
    folder = Path(tempfile.mkdtemp(prefix="campaign-"))
    laboratory = Laboratory(folder)
    outcomes: collections.Counter[str] = collections.Counter()
    failures, began = 0, time.monotonic()
    try:
        for index in range(options.first, options.first + options.count):
            rng = random.Random(f"{options.kind} {options.seed} {index}")
            try:
                outcomes[kind.case(laboratory, rng)] += 1
            except Failure as failure:
                failures += 1
                again = f"--seed {options.seed} --first {index} --count 1 --keep"
                print(f"case {index} FAILED: {failure}")
                print(f"again: python -m tests.campaign {options.kind} {again}", flush=True)
                if not options.all:
                    break
            except KeyboardInterrupt:
                break
            if index % 10 == 9:
                print(f"{index + 1 - options.first} cases", file=sys.stderr, flush=True)
    finally:
        laboratory.close()
        if failures and options.keep:
            print(f"the folder is {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    seconds = time.monotonic() - began
    print(f"{options.kind}: {counted or 'none'}; {failures} failures; {seconds:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
