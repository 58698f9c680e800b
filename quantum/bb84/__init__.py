"""Decoy-state BB84 from detections to secret bits."""
