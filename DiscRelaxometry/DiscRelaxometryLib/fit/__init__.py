"""T1rho and T2 maps: relaxation models, estimators, noise and precision."""
