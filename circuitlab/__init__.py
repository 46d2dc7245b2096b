"""circuitlab: circuits that learn by making their own control unnecessary."""
