"""A longer search: `python -m tests.fuzz --seconds 600 --kind dns`. It saves inputs that are new or fail.

The next run of the tests plays what was saved. An input that fails is saved with `failed-` in front of its name.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path
from random import Random

from tests.fuzz.explore import CORPUS, Search, failure_of
from tests.fuzz.parsers import PARSERS


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 1 if an input failed."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    options.add_argument("--seconds", type=float, default=60.0, help="seconds of the search, over all kinds (60)")
    options.add_argument("--kind", choices=sorted(PARSERS), action="append", help="one kind of input; several times")
    options.add_argument("--seed", type=int, default=None, help="of the mutations; a new one without it")
    options.add_argument("--corpus", type=Path, default=CORPUS, help="the folder to read from and to save to")
    options.add_argument("--trim", action="store_true", help="delete inputs that reach no more than shorter ones")
    given = options.parse_args(arguments)
    kinds = given.kind or list(PARSERS)
    seed = secrets.randbits(32) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    failed: list[Path] = []
    for kind in kinds:
        search = Search(PARSERS[kind], given.corpus / kind, Random(f"{seed} {kind}"))
        search.run(given.seconds / len(kinds))
        remain = f", {search.trim()} remain" if given.trim else ""
        print(f"{kind}: {search.tried} inputs, {len(search.new)} new, {len(search.failed)} failed{remain}", flush=True)
        for path in search.failed:
            print(f"  {path}: {failure_of(PARSERS[kind], path.read_bytes())!r}")
        failed += search.failed
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
