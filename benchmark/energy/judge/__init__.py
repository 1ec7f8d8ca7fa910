"""From a timeline and marks on it to joules with an uncertainty, a grade and their history. Pure arithmetic."""
