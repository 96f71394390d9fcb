"""Panel of DiscStats; imports without Qt."""
