"""Architecture search: finds a network, then trains it from scratch; both are metered."""
