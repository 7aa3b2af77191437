"""What the operator of a server decides: limits of a request, the share of the engine, model names.

All of it is read once from the environment, so that every API process obeys the same, whoever
started it; beside it stands which vLLM may be installed. Nothing here knows requests or engines.
"""
