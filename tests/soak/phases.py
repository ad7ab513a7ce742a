"""What the database is doing, as one byte that outlives the process."""

STARTING, OPENING, WRITING, COMMITTING, CHECKPOINTING = range(5)
