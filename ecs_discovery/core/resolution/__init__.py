"""What exists: which questions a target becomes, and what the answers add up to."""
