"""The theory as measurements on a circuit: per sample, in closed form, no autograd."""
