"""Steps that resume: what is due, who works on it, and what was done."""
