"""What a user opens around work: the tracer, its windows, and the sessions that record while one is open."""
