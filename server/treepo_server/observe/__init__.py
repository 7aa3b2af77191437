"""What an operator sees of trees: metrics, log lines, spans.

It decides nothing. A new figure, line or span is made here and reported from `trees/`.
"""
