"""Tests of what is made from rows."""
