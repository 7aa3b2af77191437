"""Benchmarks, each against a baseline measured in the same run.

`python -m bench.NAME` from the root of the repository. What docs/benchmarks.md tells of ends with a
line of JSON on stdout and goes to `bench/results/NAME.json`; `bench.quick` holds a short run
against those files, and `bench.soak` passes or fails. They are not part of the package.
"""
