"""`ecs-discovery doctor`: what is wrong between this task and a service, and what to do about it.

`gather` collects facts, `checks` judges them, `show` prints what was found. Only `gather` and what it calls does I/O,
so that facts from one machine can be judged on another.
"""
