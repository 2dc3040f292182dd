"""What tests build and look at: sources, label files, records, dataset versions, runs."""
