"""Many prompts in, versioned records of trees out: the seam between serving and training."""
