"""Photons to keys: optics, decoy-state BB84 and its post-processing."""
