"""How a call goes: its attempts, kinds of failure, budgets, deadlines, races and hedges."""
