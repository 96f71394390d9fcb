"""The steps of a study, for one person and for the group."""
