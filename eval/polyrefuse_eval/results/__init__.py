"""What a run is and what lies on disk: settings, records, folders. Needs no torch."""
