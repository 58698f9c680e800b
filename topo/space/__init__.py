"""Where things are and who sees them: geometry and stations (pure numpy), orbits, passes, Sun, Moon and cloud."""
