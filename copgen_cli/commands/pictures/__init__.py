"""Commands that draw and judge pictures."""
