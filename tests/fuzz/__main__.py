"""`python tests/fuzz --cases 10000`: many more cases than the ordinary tests run."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from fuzz.running import FAILURE, KINDS, RESULT, SENTENCE, Outcome, run  # noqa: E402


def main() -> int:
    """Runs the cases and prints a table; the exit status is 1 if one has failed, which is printed too."""
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="what to fuzz; default: everything")
    parser.add_argument("--cases", type=int, default=1000, help="number of cases of each kind")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other cases")
    parser.add_argument("--case", type=int, help="run this case only")
    parser.add_argument("--keep", type=Path, help="folder for the files of the cases, to look at them")
    options = parser.parse_args()
    numbers = range(options.cases) if options.case is None else [options.case]
    rows, failed = [], False
    for kind in options.kinds:
        found: list[Outcome] = []
        for outcome in run(kind, numbers, seed=options.seed, keep=options.keep and options.keep.absolute() / kind):
            found.append(outcome)
            if outcome.ended == FAILURE:
                print(f"\n{kind}, seed {options.seed}, case {outcome.case}: {outcome.text}", flush=True)
            elif options.case is not None:
                print(f"{kind}: {outcome.ended} {outcome.text}")
        ended = Counter(outcome.ended for outcome in found)
        longest = max(found, key=lambda outcome: outcome.seconds)
        failed = failed or bool(ended[FAILURE])
        rows.append(
            f"| {kind} | {len(found):,} | {ended[RESULT]:,} | {ended[SENTENCE]:,} | {ended[FAILURE]:,} | "
            f"{longest.seconds:.2f} s (case {longest.case}) | {max(outcome.growth for outcome in found) >> 20:,} MiB |"
        )
        print(rows[-1], file=sys.stderr, flush=True)
    print("\n| kind | cases | results | sentences | failures | longest case | growth of memory |")
    print("|---|---|---|---|---|---|---|", *rows, sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
