"""The sections of docs/benchmarks.md, each made from one result file."""
