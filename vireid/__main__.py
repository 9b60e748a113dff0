"""`python -m vireid`: the command line (cli/app.py)."""

from vireid.cli.app import main

if __name__ == "__main__":
    main()
