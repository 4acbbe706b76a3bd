"""providers.yaml: read with line numbers, judged at the edge, and turned into a frozen Catalogue."""
