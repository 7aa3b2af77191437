"""Whether trees pay for a model and its prompts: trees against independent sampling, paired."""
