"""What the workflow of COP-GEN (2026) leaves on disk: its merged databases, and its caches of places and times.

Pickles among them are read opcode by opcode as data; nothing in them is ever called or imported.
"""
