"""The commands: each parses, calls and renders; none imports another."""
