"""Put each module's Resources inside its Lib in a wheel; a development install reads them from the checkout."""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ResourcesHook(BuildHookInterface):
    """Adds the Resources folders to a standard wheel only, so that an editable install holds no stale copy."""

    def initialize(self, version, build_data):
        """Map Resources to where ``resource_path`` looks first."""
        if version == "standard":
            for module in ("DiscRelaxometry", "DiscAtlas", "DiscStats"):
                build_data["force_include"][f"{module}/Resources"] = f"{module}Lib/Resources"
