"""One module per command: parse, call, render; grouped as `copgen --help` shows them."""
