"""Figures about what the gateway does, for Prometheus: counted as plain integers, put into words when somebody asks."""
