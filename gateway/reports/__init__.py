"""What the store knows, worked out for people: spending over time, uptime, activity, requests. Reads, never writes."""
