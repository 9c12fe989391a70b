"""`python -m ecs_discovery.cli`."""

from ecs_discovery.cli import main

if __name__ == "__main__":
    main()
