"""The process under `treepo serve`: its flags, its plugins, and vLLM's own `serve` behind them.

Light to import; a server that vLLM starts itself needs none of it.
"""
