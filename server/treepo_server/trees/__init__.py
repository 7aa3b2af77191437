"""The trees that run in this process: admitted, started, watched, ended.

`service.py` lives as long as the server; `client.py` is what vLLM's serving code takes for the
engine, and where a request becomes a running tree. HTTP is for `ways_in/`.
"""
