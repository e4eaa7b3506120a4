"""Base learners."""
