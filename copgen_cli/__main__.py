"""`python -m copgen_cli` is `copgen`."""

from copgen_cli.app import main

if __name__ == "__main__":
    main()
