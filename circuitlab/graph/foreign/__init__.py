"""Circuits from other programs' files, and written for other programs: SONATA, GraphML, JSON, CSV, npz."""
