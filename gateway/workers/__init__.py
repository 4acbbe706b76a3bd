"""Several processes behind one port: a parent that keeps them alive, workers that answer, an owner of the files."""
