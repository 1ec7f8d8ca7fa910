"""What people read: CSV files and the printed summary."""
