"""What the gateway remembers: one SQLite file, written by one thread, that never makes a request wait."""
