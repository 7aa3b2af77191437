"""From answers to a winner, and what correlated votes are worth."""
