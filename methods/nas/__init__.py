"""Architecture search: a network is found, then trained from scratch; both on the meter."""
