"""`ecs-discovery watch`: what running programs know of a service, or else what its name resolves to, as it changes.

It reads (`ask`), checks (`document`), puts workers together (`merge`) and shows (`lines`, `view`). It writes nothing.
"""
