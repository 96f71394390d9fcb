"""The command line ``disc-relaxometry``."""
