"""What the processes and hosts of one fleet share: budgets, limits, hints, sessions and answers."""
