"""`python -m neocog` is the same as `neocog`."""

from neocog.cli import main

if __name__ == "__main__":
    main()
