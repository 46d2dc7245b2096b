"""Where the floors meet: an experiment file becomes a compiled circuit, data, a task, a trainer and a run file."""
