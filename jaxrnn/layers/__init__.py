"""A cell over time, and layers of layers."""
