"""The harness: measures anything that can be planned."""
