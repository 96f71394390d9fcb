"""How the shipped network was trained and evaluated."""
