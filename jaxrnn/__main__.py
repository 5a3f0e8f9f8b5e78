"""`python -m jaxrnn` is the console command `jaxrnn`."""

from jaxrnn.cli.commands import main

if __name__ == "__main__":
    main()
