"""What the commands of benchmarks/theory.py compute and draw, a file for each kind of figure."""
