"""Traces and metrics by OpenTelemetry's GenAI conventions, of what a request leaves at its end; never its words."""
