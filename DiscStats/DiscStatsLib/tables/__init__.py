"""Statistics of tables: agreement, ROC curves, mixed models of region means."""
