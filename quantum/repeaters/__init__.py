"""Hybrid networks of quantum repeaters: entanglement over fibre and from satellites, and the best paths through it."""
