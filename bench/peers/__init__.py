"""Other packages that spend more on an answer, on the same server and the same problems."""
