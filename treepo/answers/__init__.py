"""From a text to its answer and the answer's normalised key."""
