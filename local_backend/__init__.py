"""Runs a model on this machine: a llama.cpp worker process, and all that the gateway needs to talk to it."""
