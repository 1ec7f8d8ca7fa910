"""The algorithms: plans (no torch) and stage functions. They know nothing about meters, storage or the command line."""
