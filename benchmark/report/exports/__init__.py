"""Rows in the formats of other tools. Every text that comes from a record is data there, too."""
