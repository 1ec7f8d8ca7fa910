"""From plans to records: who works which stage, when, and what it is given."""
