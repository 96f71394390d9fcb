"""Long work in a process of its own, so that a panel stays alive."""
