"""`make bench`: a short version of the benchmarks, held against the committed results."""
