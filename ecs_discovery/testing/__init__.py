"""Tools to try programs that use ecs_discovery, and this package itself."""
