"""Panels of the extension: everything that needs Qt. Imports without Qt; Qt is imported when a panel opens."""
