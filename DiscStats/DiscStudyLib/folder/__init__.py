"""What lies in a study's folder: people, files, settings, and what is wrong with them."""
