"""Benchmarks, each against a baseline measured in the same run.

`python -m bench.NAME` from the root of the repository; the last line of each on stdout is JSON,
and the whole result goes to `bench/results/NAME.json`. They are not part of the package.
"""
