"""How long a hop takes: delay elements, netem, waiting lines, the predictor."""
