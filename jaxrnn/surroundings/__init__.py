"""What surrounds a run: code, versions, machine, and JAX's compilation cache."""
