"""Commands that make and inspect models."""
