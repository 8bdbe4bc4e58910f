"""What a study will cost, and what its jobs ask a machine for."""
