"""One file for each version. `revision` is its number."""
