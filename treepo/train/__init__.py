"""The trainer: turns sampled trees into policy updates.

This file stays empty so that importing one part never loads the others: the estimators need
numpy only, the packed loss needs torch and transformers. Only `remote*.py` speak HTTP.
"""
