"""Commands that get and prepare data."""
