"""TreePO's face to vLLM's server: an endpoint plugin that lets requests carry a `tree`."""
