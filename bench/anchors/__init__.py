"""Frozen prototypes that every run measures along with the gateway, so that runs on other machines can be compared.

They are controls, not products: do not improve them. What they do per request is in bench/README.md.
"""
