"""`python -m circuitlab`, and what `torchrun -m circuitlab` starts in every process."""

from circuitlab.cli.main import entry

if __name__ == "__main__":
    entry()
