"""Views of a catalog: the doctor's HTML page, contact sheets, an item or a user at a glance."""
