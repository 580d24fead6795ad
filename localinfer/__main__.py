"""`python -m localinfer` is the program."""

from localinfer.cli.main import main

if __name__ == "__main__":
    main()
