"""Controls for notebooks: thin, they measure nothing and compute nothing."""
