"""`python -m eventflows` is the command `eventflows`."""

from eventflows.cli import main

if __name__ == "__main__":
    main()
