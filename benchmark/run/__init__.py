"""From plans to records: which stage runs when, where, and what it is given."""
