"""What is asked of a study that has run: status, tables, exports, maps."""
