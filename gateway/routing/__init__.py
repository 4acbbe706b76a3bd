"""Who may answer a request, and in which order. Pure: no await, no clock, no log, no randomness."""
