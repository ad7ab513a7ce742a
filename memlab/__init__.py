"""memlab: a real memory engine, and a laboratory that measures it."""
