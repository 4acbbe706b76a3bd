"""Alerts: what the store says is looked through now and then, and who wants to know is told by a signed POST."""
