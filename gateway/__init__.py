"""Decides and serves: the only package that knows both providers and the local backend."""
