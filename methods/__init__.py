"""The algorithms: plans (torch-free) and stage functions. Nothing here knows of meters, storage or the command line."""
