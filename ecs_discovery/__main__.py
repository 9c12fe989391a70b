"""`python -m ecs_discovery`: the command line."""

from __future__ import annotations

from ecs_discovery.cli import main

if __name__ == "__main__":
    main()
