"""circuitlab: circuits that learn by making their own control unnecessary."""

__version__ = "0.1.0"
