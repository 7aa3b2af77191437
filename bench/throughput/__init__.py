"""How many trajectories a second: trees against `n` samples, and against lockstep segments."""
