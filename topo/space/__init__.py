"""Where things are: slant range, elevation, propagation delay, passes. Pure numpy."""
