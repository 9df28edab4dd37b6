"""`python -m zstreamer`: the command line."""

from zstreamer.cli import main

if __name__ == "__main__":
    main()
