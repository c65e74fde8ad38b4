"""Results as a page for a browser, which opens from disk: recordings, their sources and events to hear and to see."""
