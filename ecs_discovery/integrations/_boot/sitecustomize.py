"""Python runs this at its start where `ecs-discovery run` has put this directory first in PYTHONPATH.

It begins what `install` does, and then runs the `sitecustomize` that it stands before.
"""

import os
import sys


def _begin() -> None:
    try:
        from ecs_discovery.integrations.install import if_asked

        if_asked()
    except Exception as error:  # noqa: BLE001  # a fault of ours never stops the program
        sys.stderr.write(f"ecs_discovery: not installed into this process: {error!r}\n")


def _chain() -> None:
    """Run the next `sitecustomize` on the path, as if this one were not there. The path of children stays as it is."""
    here = os.path.dirname(os.path.abspath(__file__))
    kept = list(sys.path)
    sys.path[:] = [each for each in sys.path if os.path.abspath(each or os.curdir) != here]
    ours = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
        if ours is not None:
            sys.modules["sitecustomize"] = ours
    finally:
        sys.path[:] = [each for each in kept if os.path.abspath(each or os.curdir) != here]


_begin()
_chain()
