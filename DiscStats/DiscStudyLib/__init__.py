"""A study on disk: its folder, the engine that resumes it, its steps, report and command line."""
