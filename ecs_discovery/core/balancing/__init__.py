"""Who is chosen: nodes with their load and health, and the rules that pick one of them."""
