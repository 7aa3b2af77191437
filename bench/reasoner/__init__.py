"""A reasoner that fits a laptop: problems it can half solve, and the training that made it."""
