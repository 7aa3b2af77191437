"""Engines: the protocol, a scripted one of known law, and vLLM."""
