"""Reads what other gateways are configured with, and what vendors publish of their models, as drafts of providers.yaml.

Every conversion is pure: the text of a source goes in, a Draft comes out, with a note for all that was left behind.
"""
