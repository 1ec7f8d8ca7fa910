"""What is kept on disk: records, runs, attempts, artifacts, and where each came from."""
