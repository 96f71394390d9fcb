"""The report of a study: one page per study, with figures and methods text."""
