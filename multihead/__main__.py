"""`python -m multihead` is the command line."""

from multihead.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
