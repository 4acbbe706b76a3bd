"""The HTTP edge: from the socket to a ChatRequest, and from Events back to bytes."""
