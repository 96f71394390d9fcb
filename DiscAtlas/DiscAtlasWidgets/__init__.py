"""Panel of DiscAtlas; imports without Qt."""
