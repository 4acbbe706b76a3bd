"""A seeded simulator of traffic, prices and failures around the real engine, router, health and codec.

Only the providers, the clients and the clock are pretended. Everything else is what `mixgate serve` runs.
"""
